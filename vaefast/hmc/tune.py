"""Choosing the sampler's numbers on a few pilot inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vaefast import checks
from vaefast.hmc.health import say
from vaefast.hmc.mixing import worst_effective_draws
from vaefast.hmc.options import with_unit_mass
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
    """Find the step size and the number of leapfrogs with the most effective draws per gradient.

    For every candidate L four chains adapt on each pilot row; ε is the median over the rows. What L
    is worth on a row is what its worst latent is worth, in mean and in width::

        min_i min(ESS(z_i), ESS((z_i − mean_i)²)) / (C · T · L)

    ESS(z) alone is largest for chains that jump from one side of the posterior to the other, half a
    period at a time, and never learn its width. Means and variances are over the draws of all
    candidates, so that a chain that has not explored does not look mixed. The best L has the
    largest median over the rows. This is the only function that pools over inputs. It returns
    plain numbers, so that later results do not depend on the pilot's batch:
    ``sample(vae, x, adapt=None, **tune(vae, x_pilot))``.

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
            to ``sample`` later. The default ``mass`` is "unit", as there with ``adapt=None``.

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
    options = with_unit_mass({"chains": CHAINS, **options})
    given = complete(leapfrog=None, seed=seed, warmup=warmup, steps=steps, jitter=jitter, **options)
    with own_modes(), unchecked():
        vae, x_pilot, context = promoted(vae, x_pilot, context, given["precision"])
        prepared = prepare(vae, x_pilot, index, context=context, backend=given["backend"])
        runs = [sampled(prepared, **{**given, "leapfrog": L}) for L in leapfrogs]
    healthy = ~runs[0].failed
    if not len(healthy):
        raise ValueError("x_pilot must hold at least one row, got none")
    if not bool(healthy.any()):
        raise ValueError(f"x_pilot has no usable row: all {len(healthy)} failed (not finite)")
    mixing = mixing_per_gradient(runs, leapfrogs, healthy)
    best = max(range(len(runs)), key=mixing.__getitem__)
    chosen = runs[best]
    say("hmc.tune", chosen.failed, chosen.reasons, chosen.z.dtype)
    step_size = float(chosen.step_size[healthy].median())
    return {"step_size": step_size, "leapfrog": leapfrogs[best], "jitter": jitter}


def mixing_per_gradient(
    runs: list[HMCResult], leapfrogs: Sequence[int], healthy: Tensor
) -> list[float]:
    """Median over rows of the fewest effective draws per gradient, per candidate."""
    worst = worst_effective_draws([run.z[healthy].flatten(3) for run in runs])
    gradients = [run.z.shape[1] * run.z.shape[2] * L for run, L in zip(runs, leapfrogs)]
    return [float(draws.median()) / number for draws, number in zip(worst, gradients)]
