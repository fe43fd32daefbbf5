"""Where chains start, and with which mass."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.rows import repeated
from vaefast.hmc.inputs import Inputs
from vaefast.hmc.mass import Metric, metric_at_mean
from vaefast.hmc.plan import Plan
from vaefast.hmc.windows import inverse_mass_of
from vaefast.models.prepare import Prepared

__all__ = ["metric_from", "posterior_draws", "start"]


def start(plan: Plan, rows: Prepared, inputs: Inputs) -> tuple[Tensor, Metric]:
    """z₀ [N, d], a draw from q(z|x) where none was given, and the mass to begin with."""
    init, options = inputs.init, plan.options
    dtype, chains = inputs.step_size.dtype, options.chains
    metric = Metric(inputs.inv_mass)
    named = options.mass not in ("unit", "given")
    if init is None or named:
        mean, std = (values.to(dtype) for values in _posterior(rows))
        if named:
            metric = metric_at_mean(options.mass, rows, mean, std)
    if init is not None:
        return init.flatten(0, 1).contiguous(), metric
    return posterior_draws(mean, std, chains, seed=options.seed, index=rows.index), metric


def metric_from(mass: str, rows: Prepared, draws: Tensor) -> Metric:
    """The metric after a window of the warm-up with these draws [B, n, d].

    That of their variances; a dense one is the decoder's at their mean, where q(z|x) may not be.
    """
    if mass == "warmup":
        return Metric(inverse_mass_of(draws))
    return metric_at_mean(mass, rows, draws.mean(1), draws.std(1))


def posterior_draws(
    mean: Tensor, std: Tensor, chains: int, *, seed: int, index: Tensor, step: int = 0
) -> Tensor:
    """z ~ N(mean, std²), C for each of B rows, chain-minor: [B·C, d]; others for every ``step``."""
    lane = torch.arange(chains, device=mean.device).repeat(len(mean)) if chains > 1 else 0
    noise = philox.normal(
        mean.shape[1],
        seed=seed,
        index=repeated(index, chains),
        step=step,
        lane=lane,
        use=philox.Use.INITIAL,
        dtype=mean.dtype,
    )
    return repeated(mean, chains) + repeated(std, chains) * noise


def _posterior(rows: Prepared) -> tuple[Tensor, ...]:
    """μ and σ, [B, d] each; an encoder that is no network has batches of its own."""
    return rows.rows(
        lambda part: part.maps.posterior(part.x),
        rows.maps.mean.bytes_per_row(rows.x.element_size()),
        generic=rows.maps.generic("encoder"),
    )
