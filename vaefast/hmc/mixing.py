"""How many independent draws some chains are worth, for the mean and for the width of a latent."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["effective_draws", "worst_effective_draws"]


def worst_effective_draws(runs: Sequence[Tensor]) -> list[Tensor]:
    """Of each run the fewest effective draws of any latent z_i or its (z_i − mean)²: [B] each.

    A chain that jumps from one side of the posterior to the other has many effective draws of z
    and none of the width; so the worse of the two counts. The mean is that of all runs together,
    and so is the spread that jumps are compared with: a run that has not explored does not look
    mixed.

    Args:
        runs: [B, C, T, d] draws each, of the same posteriors.
    """
    together = torch.cat([z.flatten(1, 2) for z in runs], dim=1).double()  # [B, n, d]
    mean = together.mean(1)
    square = (together - mean[:, None]).square()
    spreads = square.mean(1), square.var(1, correction=0)  # of z and of its square
    worst = []
    for z in runs:
        centred = z.double() - mean[:, None, None]
        values = centred, centred.square()
        pair = [effective_draws(*given) for given in zip(values, spreads)]  # [B, d] each
        worst.append(torch.minimum(*pair).amin(1))
    return worst


def effective_draws(draws: Tensor, spread: Tensor) -> Tensor:
    """C·T / (1 + 2 Σ_t ρ_t) for chains [B, C, T, d]: [B, d] float64.

    With ρ_t = 1 − E(f_{s+t} − f_s)² / (2 Var f) over all chains of the row, summed in pairs of lags
    while these are positive, each no larger than the one before; at most C·T·log₁₀(C·T), which
    chains of negative correlation would exceed.

    Chains too short for their correlation would look better than they are. But the transitions are
    reversible, so that the sum is (1 + ρ₁)/(1 − ρ₁) at least (Jensen's inequality on
    ρ_t = ∫ λᵗ dμ(λ)); there ρ₁ is with ``spread`` [B, d], what is known of Var f from elsewhere,
    if that is larger. 0 where nothing varies.

    Source: Geyer, "Practical Markov chain Monte Carlo", Statistical Science 7 (1992), §3.3;
    Gelman et al., "Bayesian Data Analysis", 3rd edition (2013), §11.5, for ρ_t.
    """
    number = draws.shape[1] * draws.shape[2]
    jumps = 0.5 * _variogram(draws)  # [B, T, d]
    own = draws.flatten(1, 2).var(1, correction=0)
    correlation = 1.0 - jumps / own[:, None]
    pairs = correlation[:, : draws.shape[2] // 2 * 2].unflatten(1, (-1, 2)).sum(2)  # [B, T/2, d]
    counted = (pairs > 0).cummin(1).values
    time = 2.0 * (pairs.cummin(1).values * counted).sum(1) - 1.0
    first = 1.0 - jumps[:, 1] / torch.maximum(own, spread)  # ρ₁
    time = time.maximum((1.0 + first) / (1.0 - first).clamp(min=0.0))
    found = number / time.clamp(min=1.0 / max(math.log10(number), 1.0))
    return torch.where(own > 0, found, 0.0)


def _variogram(draws: Tensor) -> Tensor:
    """Mean over chains and s of (f_{s+t} − f_s)² for every lag t: [B, T, d]."""
    steps = draws.shape[2]
    spectrum = torch.fft.rfft(draws, n=2 * steps, dim=2)
    products = torch.fft.irfft(spectrum.abs().square(), n=2 * steps, dim=2)[:, :, :steps]
    totals = draws.square().cumsum(2)
    first = totals.flip(2)  # Σ f_s² over the first T − t of them
    last = totals[:, :, -1:] - torch.cat((torch.zeros_like(totals[:, :, :1]), totals), 2)[:, :, :-1]
    pairs = torch.arange(steps, 0, -1, device=draws.device).view(1, 1, -1, 1)
    return ((first + last - 2.0 * products) / pairs).clamp(min=0.0).mean(1)
