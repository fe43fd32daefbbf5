"""Divergences between diagonal Gaussians, and the other distances that latent attacks use.

Every function takes two posteriors as (mean, logvar) [N, d], works in float64, is differentiable
and returns [N] (in nats, except ``means`` and ``w2``). The logarithmic terms are written with
``expm1`` and ``sinh``, which do not cancel when the two variances are close.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["DIVERGENCES", "kl", "kl_forward", "kl_reverse", "means", "skl", "w2"]

Divergence = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def kl(mean_q: Tensor, logvar_q: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(q ‖ p) = ½ Σ [e^t − 1 − t + (μ_q − μ_p)²/σ_p²] with t = log σ_q² − log σ_p².

    Equivalent to: ``kl_divergence(Normal(mean_q, std_q), Normal(mean_p, std_p)).sum(1)``
    """
    mean_q, logvar_q, mean_p, logvar_p = _double(mean_q, logvar_q, mean_p, logvar_p)
    t = logvar_q - logvar_p
    return 0.5 * (torch.expm1(t) - t + (mean_q - mean_p).square() * torch.exp(-logvar_p)).sum(1)


def kl_forward(mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor) -> Tensor:
    """KL(reference ‖ adversarial). Source: Kuzina et al. 2022, mathematics.md 1.1."""
    return kl(mean_ref, logvar_ref, mean, logvar)


def kl_reverse(mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor) -> Tensor:
    """KL(adversarial ‖ reference). Source: Kuzina et al. 2022, mathematics.md 1.1."""
    return kl(mean, logvar, mean_ref, logvar_ref)


def skl(mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor) -> Tensor:
    """½ KL(q ‖ p) + ½ KL(p ‖ q) = Σ [sinh²(t/2) + ¼ (Δμ)² (σ_q⁻² + σ_p⁻²)], symmetric.

    Source: Kuzina et al. 2022, mathematics.md 1.1, with ¼(ρ + 1/ρ) − ½ = sinh²(t/2) for ρ = e^t.
    """
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    precision = torch.exp(-logvar) + torch.exp(-logvar_ref)
    scale = _sinh(0.5 * (logvar - logvar_ref)).square()
    return (scale + 0.25 * (mean - mean_ref).square() * precision).sum(1)


def means(mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor) -> Tensor:
    """‖Δμ‖². Source: Kuzina et al. 2022, mathematics.md 1.1."""
    mean, mean_ref = _double(mean, mean_ref)
    return (mean - mean_ref).square().sum(1)


def w2(mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor) -> Tensor:
    """‖Δμ‖² + ‖Δσ‖², the squared 2-Wasserstein distance of the two Gaussians."""
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    std, std_ref = torch.exp(0.5 * logvar), torch.exp(0.5 * logvar_ref)
    return ((mean - mean_ref).square() + (std - std_ref).square()).sum(1)


DIVERGENCES: dict[str, Divergence] = {
    "skl": skl,
    "kl_forward": kl_forward,
    "kl_reverse": kl_reverse,
    "means": means,
    "w2": w2,
}


def _sinh(t: Tensor) -> Tensor:
    """sinh, with the same bits wherever an entry stands in the tensor, as torch.sinh has not."""
    return 0.5 * (torch.expm1(t) - torch.expm1(-t))


def _double(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple([t.double() for t in tensors])
