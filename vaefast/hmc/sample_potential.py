"""The sampler without a VAE: any batched potential energy, and the published call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.health import say
from vaefast.hmc.options import METRIC_FROM, WARMUP
from vaefast.hmc.result import HMCResult
from vaefast.hmc.sample import complete, sample
from vaefast.hmc.sampler import sampled
from vaefast.models.context import Context
from vaefast.models.potential_model import PotentialModel
from vaefast.models.prepare import prepare
from vaefast.models.vae import VAE
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes

__all__ = ["sample_posterior", "sample_potential"]

MASSES = ("unit", "warmup")


def sample_potential(
    potential: Callable[..., Any],
    z0: Tensor,
    context: Context = None,
    *,
    chains: int | None = None,
    steps: int = 1000,
    warmup: int | None = None,
    leapfrog: int | str | None = None,
    step_size: float | Tensor = 0.1,
    adapt: str | None = "dual_averaging",
    target_accept: float | None = None,
    jitter: float | None = None,
    mass: str | Tensor | None = None,
    keep: str | int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    progress: bool = False,
) -> HMCResult:
    """Draw from exp(−U_b) of B potentials at once, C chains each, without a VAE.

    The transitions, step sizes, masses, random numbers and results are those of
    :func:`vaefast.hmc.sample`; every row has its own, so that rows may be different targets. The
    energy and its gradient are evaluated once per leapfrog for all B·C chains.

    Args:
        potential: U in nats up to a constant, batched: z [n, d] ↦ [n], or with ``context``
            (z, context) ↦ [n], by torch functions; or its gradient with it, ([n], [n, d]), where
            that is at hand. Row i depends on row i of its arguments alone. A function of one point
            becomes one by ``torch.func.vmap``. A module must be in evaluation mode.
        z0: where the chains start, float32 or float64: [B, d], shared by a row's chains, or
            [B, C, d]. R-hat needs starts that are spread out.
        context: what differs from row to row, [B, ...] or a dict of such; repeated for the chains.
        chains: C, default 1 or what ``z0`` has.
        steps, warmup, leapfrog, step_size, adapt, target_accept, jitter, keep, seed, index,
            progress: as for :func:`vaefast.hmc.sample`; ``leapfrog="quarter"`` and ``"chees"`` too.
        mass: ``"unit"``, ``"warmup"`` (diagonal, from the row's own draws, as in Stan) or positive
            masses [d] or [B, d]. Default "warmup" with an adapting warm-up of 50 transitions or
            more, else "unit".

    Returns:
        :class:`HMCResult`: draws [B, C, T, d] in z0's dtype, ``energy`` U in nats, and all of its
        diagnostics (R-hat, ESS, divergences, reasons per row).

    Raises:
        TypeError: no function, a wrong dtype, or a potential that returns no tensor.
        ValueError: a wrong shape or an option out of range.
    """
    if not callable(potential):
        raise TypeError(f"potential must be a function, got {type(potential).__name__}")
    chains = _chains(z0, chains)
    if isinstance(mass, str):
        checks.option(mass, "mass", MASSES)
    if mass is None:
        length = WARMUP if warmup is None else warmup
        mass = "warmup" if adapt is not None and length >= METRIC_FROM else "unit"
    place = z0.new_zeros(len(z0), 1)
    given = complete(
        init=z0.detach(),
        chains=chains,
        steps=steps,
        warmup=warmup,
        leapfrog=leapfrog,
        step_size=step_size,
        adapt=adapt,
        target_accept=target_accept,
        jitter=jitter,
        mass=mass,
        keep=keep,
        seed=seed,
        index=index,
        progress=progress,
    )
    with own_modes(), unchecked():
        model = PotentialModel(potential, z0.shape[-1])
        result = sampled(prepare(model.eval(), place, index, context=context), **given)
    say("hmc.sample_potential", result.failed, result.reasons, result.z.dtype)
    return result


def sample_posterior(
    vae: VAE, z_init: Tensor, x: Tensor, n_steps: int, step_size: float, **options: Any
) -> Tensor:
    """z_T of the published defence, from given starts: ``schedule="kuzina2022"``, one chain a row.

    n_steps // 2 transitions of burn-in and n_steps more of 20 leapfrogs each, one step size for all
    rows of the call, which goes on adapting, as in the released code, where the rows are the
    adversarial inputs of one reference.

    Args:
        vae: the model.
        z_init: [B, d], where the chains start.
        x: [B, *event].
        n_steps: T.
        step_size: the first one.
        options: others of :func:`vaefast.hmc.sample`, such as ``seed=`` and ``group=``.

    Returns:
        The last states [B, d].

    Raises:
        As :func:`vaefast.hmc.sample`.

    Source: Kuzina, Welling, Tomczak 2022, and its code.
    """
    starts = checks.tensor(z_init, "z_init")
    given = {"schedule": "kuzina2022", "group": max(len(x), 1), "keep": "last", **options}
    result = sample(vae, x, init=starts, steps=n_steps, step_size=step_size, **given)
    return result.z[:, 0, -1]


def _chains(z0: Tensor, chains: int | None) -> int:
    checks.tensor(z0, "z0")
    if z0.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"z0 must be float32 or float64, got {checks.short(z0.dtype)}")
    if z0.ndim not in (2, 3):
        raise ValueError(f"z0 must be [B, d] or [B, C, d], got {list(z0.shape)}")
    if z0.ndim == 3 and chains not in (None, z0.shape[1]):
        raise ValueError(f"z0 {list(z0.shape)} has {z0.shape[1]} chains, got chains={chains}")
    if z0.ndim == 3:
        return z0.shape[1]
    return 1 if chains is None else chains
