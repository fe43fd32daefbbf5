"""Divergences between diagonal Gaussians, and the other distances that latent attacks use.

Every function takes two posteriors as (mean, logvar) [N, d], works in float64, is differentiable
and returns [N] (in nats, except ``means`` and ``w2``). The logarithmic terms are written with
``expm1`` and ``sinh``, which do not cancel when the two variances are close.

SLOPES has the same values with their derivatives in closed form, for searches: on the few numbers
of a posterior, autograd's way through a dozen operations costs as much as a small encoder.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "DIVERGENCES",
    "SLOPES",
    "Sloped",
    "kl",
    "kl_forward",
    "kl_reverse",
    "means",
    "skl",
    "w2",
]

Divergence = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# to the value [N] and its derivatives in mean and logvar [N, d], all float64; None where it is 0
Sloped = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]


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


def _skl_slopes(
    mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """∂μ: ½Δμ (σ_q⁻² + σ_p⁻²), ∂log σ²: sinh(t/2) cosh(t/2) − ¼ (Δμ)² σ_q⁻²."""
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    own = torch.exp(-logvar)
    precision, delta = own + torch.exp(-logvar_ref), mean - mean_ref
    half = 0.5 * (logvar - logvar_ref)
    up, down = torch.expm1(half), torch.expm1(-half)
    sinh, square = 0.5 * (up - down), 0.25 * delta.square()
    value = (sinh.square() + square * precision).sum(1)
    by_logvar = sinh * (0.5 * (up + down) + 1.0) - square * own
    return value, 0.5 * delta * precision, by_logvar


def _kl_forward_slopes(
    mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """∂μ: Δμ σ_q⁻², ∂log σ²: −½ [e^t − 1 + (Δμ)² σ_q⁻²] with t = log σ_p² − log σ_q²."""
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    t, delta = logvar_ref - logvar, mean - mean_ref
    shift = delta * torch.exp(-logvar)
    moved, grown = shift * delta, torch.expm1(t)
    return 0.5 * (grown - t + moved).sum(1), shift, -0.5 * (grown + moved)


def _kl_reverse_slopes(
    mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """∂μ: Δμ σ_p⁻², ∂log σ²: ½ (e^t − 1) with t = log σ_q² − log σ_p²."""
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    t, delta = logvar - logvar_ref, mean - mean_ref
    shift, grown = delta * torch.exp(-logvar_ref), torch.expm1(t)
    return 0.5 * (grown - t + shift * delta).sum(1), shift, 0.5 * grown


def _means_slopes(
    mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
) -> tuple[Tensor, Tensor, None]:
    """∂μ: 2Δμ."""
    mean, mean_ref = _double(mean, mean_ref)
    delta = mean - mean_ref
    return delta.square().sum(1), 2.0 * delta, None


def _w2_slopes(
    mean: Tensor, logvar: Tensor, mean_ref: Tensor, logvar_ref: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """∂μ: 2Δμ, ∂log σ²: σ Δσ."""
    mean, logvar, mean_ref, logvar_ref = _double(mean, logvar, mean_ref, logvar_ref)
    std, delta = torch.exp(0.5 * logvar), mean - mean_ref
    wider = std - torch.exp(0.5 * logvar_ref)
    return (delta.square() + wider.square()).sum(1), 2.0 * delta, wider * std


SLOPES: dict[str, Sloped] = {
    "skl": _skl_slopes,
    "kl_forward": _kl_forward_slopes,
    "kl_reverse": _kl_reverse_slopes,
    "means": _means_slopes,
    "w2": _w2_slopes,
}


def _sinh(t: Tensor) -> Tensor:
    """sinh, with the same bits wherever an entry stands in the tensor, as torch.sinh has not."""
    return 0.5 * (torch.expm1(t) - torch.expm1(-t))


def _double(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple([t.double() for t in tensors])
