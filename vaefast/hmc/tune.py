"""Choosing the sampler's numbers on a few pilot inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.hmc.health import say
from vaefast.hmc.promotion import promoted
from vaefast.hmc.result import HMCResult
from vaefast.hmc.sample import complete
from vaefast.hmc.sampler import sampled
from vaefast.models.context import Context
from vaefast.models.prepare import prepare
from vaefast.models.vae import VAE
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import own_modes

__all__ = ["tune"]

LEAPFROGS = (2, 4, 8, 16, 32)
CHAINS = 4


def tune(
    vae: VAE,
    x_pilot: Tensor,
    *,
    seed: int = 0,
    leapfrogs: Sequence[int] = LEAPFROGS,
    warmup: int = 200,
    steps: int = 200,
    jitter: float = 0.2,
    context: Context = None,
    **options: Any,
) -> dict[str, float | int]:
    """Find the step size and the number of leapfrogs that move furthest per gradient.

    For every candidate L four chains adapt on each pilot row; ε is the median over the rows. The
    mixing of L on a row is how far the frozen chains jump in the slowest direction, per gradient::

        min_i (1 − ρ_i) / L,   1 − ρ_i = E(z'_i − z_i)² / (2 Var z_i),   ρ_i the lag-1 correlation

    with Var z_i over the draws of all candidates, so that a chain that has not explored does not
    look mixed. The best L has the largest median over the rows. This is the only function
    that pools over inputs. It returns plain numbers, so that later results do not depend on the
    pilot's batch: ``sample(vae, x, adapt=None, **tune(vae, x_pilot))``.

    Args:
        vae: the model.
        x_pilot: [B, *event], some typical inputs, other than those to be reported.
        seed: seed of all random numbers.
        leapfrogs: the candidates for L.
        warmup: transitions of adaptation, at least 1.
        steps: transitions that are judged, at least 2.
        jitter: as in :func:`sample`; it is returned as it is.
        context: conditions of each pilot input, [B, ...] or a dict of such tensors.
        options: further options of :func:`sample`, e.g. ``mass`` or ``backend``; pass the same ones
            to ``sample`` later.

    Returns:
        ``{"step_size": ε, "leapfrog": L, "jitter": jitter}``.

    Raises:
        ValueError: no candidate, an option out of range, or every pilot row failed.
        Others as :func:`sample`.
    """
    if not leapfrogs:
        raise ValueError("leapfrogs must name at least one candidate, got none")
    checks.count(warmup, "warmup")
    checks.count(steps, "steps", 2)
    index = options.get("index")
    options = {"chains": CHAINS, **options}
    given = complete(leapfrog=None, seed=seed, warmup=warmup, steps=steps, jitter=jitter, **options)
    with own_modes(), unchecked():
        vae, x_pilot, context = promoted(vae, x_pilot, context, given["precision"])
        prepared = prepare(vae, x_pilot, index, context=context, backend=given["backend"])
        runs = [sampled(prepared, **{**given, "leapfrog": L}) for L in leapfrogs]
    healthy = ~runs[0].failed
    if not bool(healthy.any()):
        raise ValueError(f"x_pilot has no usable row: all {len(healthy)} failed (not finite)")
    mixing = mixing_per_gradient(runs, leapfrogs, healthy)
    best = max(range(len(runs)), key=mixing.__getitem__)
    say(runs[best], "hmc.tune")
    step_size = float(runs[best].step_size[healthy].median())
    return {"step_size": step_size, "leapfrog": leapfrogs[best], "jitter": jitter}


def mixing_per_gradient(
    runs: list[HMCResult], leapfrogs: Sequence[int], healthy: Tensor
) -> list[float]:
    """Median over rows of the smallest (1 − ρ_i) / L, per candidate."""
    draws = [run.z[healthy].flatten(3).double() for run in runs]  # each [B, C, T, d]
    variance = torch.cat(draws, dim=2).flatten(1, 2).var(dim=1)  # [B, d]
    jumps = [0.5 * z.diff(dim=2).square().mean(dim=(1, 2)) for z in draws]
    moved = [(jump / variance).nan_to_num(0.0) for jump in jumps]  # no variance: nothing moved
    slowest = [move.amin(dim=1).median() for move in moved]
    return [float(value) / leapfrog for value, leapfrog in zip(slowest, leapfrogs)]
