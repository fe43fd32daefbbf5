"""The likelihoods p(x | out): per-pixel log-density and its derivative, one table.

``out`` holds natural parameters a: logits of the (continuous) Bernoulli, the Gaussian's mean.
The Bernoulli family is folded at a = 0: with u = |a| and t = x for a ≤ 0, 1 − x for a > 0,

    log p = −t·u − A(u),   A(u) = log(1 + e⁻ᵘ)          Bernoulli
                           A(u) = log((1 − e⁻ᵘ) / u)    continuous Bernoulli

so that no two large numbers are subtracted, whatever the size of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PIXEL_LIKELIHOODS", "PixelLikelihood"]

CLAMP = math.log((1.0 - 1e-5) / 1e-5)  # |logit| at which the clamped Bernoulli stops
SERIES_BELOW = 0.5  # u under which the continuous Bernoulli's normaliser is its Taylor series
# B₂ₖ/(2k)! for k = 1, 2, ...: ½ − u/12 + u³/720 − ... = ½ − Σ b_k u²ᵏ⁻¹ is the mean at logit −u.
MEAN_SERIES = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
    -3617 / 10670622842880000,
)


class PixelLikelihood(NamedTuple):
    """One likelihood; out and x broadcast, obs_std is the Gaussian's standard deviation.

    Args:
        log_density: (out, x, obs_std) ↦ log p per pixel, less the constant, in nats.
        derivative: (out, x, obs_std) ↦ d log p / d out per pixel.
        constant: obs_std ↦ the part of log p per pixel that depends on neither out nor x.
    """

    log_density: Callable[[Tensor, Tensor, float], Tensor]
    derivative: Callable[[Tensor, Tensor, float], Tensor]
    constant: Callable[[float], float] = lambda obs_std: 0.0


def _fold(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    positive = out > 0
    return torch.where(positive, out, -out), torch.where(positive, 1.0 - x, x)  # u, t


def _bernoulli(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    u, t = _fold(out, x)
    return F.logsigmoid(u) - t * u


def _bernoulli_derivative(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    return x - torch.sigmoid(out)


def _clamped(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    return _bernoulli(out.clamp(-CLAMP, CLAMP), x, obs_std)


def _clamped_derivative(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    return (x - torch.sigmoid(out)) * (out.abs() <= CLAMP)


def _gaussian(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    return -0.5 * ((x - out) / obs_std).square()


def _gaussian_derivative(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    return (x - out) / obs_std**2


def _gaussian_constant(obs_std: float) -> float:
    return -math.log(obs_std) - 0.5 * math.log(2.0 * math.pi)


def _continuous_bernoulli(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    u, t = _fold(out, x)
    return -t * u - _log_normaliser(u)


def _continuous_bernoulli_derivative(out: Tensor, x: Tensor, obs_std: float) -> Tensor:
    u, t = _fold(out, x)
    slope = _mean(u) - t
    return torch.where(out > 0, slope, -slope)


def _log_normaliser(u: Tensor) -> Tensor:
    """log((1 − e⁻ᵘ)/u) for u ≥ 0; near 0 the integral −u/2 + Σ b_k u²ᵏ/(2k) of −_mean."""
    near, far = u.clamp(max=SERIES_BELOW), u.clamp(min=SERIES_BELOW)
    terms = [b / (2 * k) for k, b in enumerate(MEAN_SERIES, start=1)]
    series = -0.5 * near + near * near * _polynomial(near * near, terms)
    return torch.where(u < SERIES_BELOW, series, torch.log(-torch.expm1(-far) / far))


def _mean(u: Tensor) -> Tensor:
    """E[x] at logit −u for u ≥ 0: 1/u − 1/(eᵘ − 1), which falls from ½ to 0."""
    near, far = u.clamp(max=SERIES_BELOW), u.clamp(min=SERIES_BELOW)
    series = 0.5 - near * _polynomial(near * near, MEAN_SERIES)
    decay = torch.exp(-far)
    return torch.where(u < SERIES_BELOW, series, 1.0 / far - decay / (1.0 - decay))


def _polynomial(y: Tensor, coefficients: tuple[float, ...] | list[float]) -> Tensor:
    result = torch.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * y + coefficient
    return result


PIXEL_LIKELIHOODS = {
    "bernoulli": PixelLikelihood(_bernoulli, _bernoulli_derivative),
    "gaussian": PixelLikelihood(_gaussian, _gaussian_derivative, _gaussian_constant),
    "continuous_bernoulli": PixelLikelihood(
        _continuous_bernoulli, _continuous_bernoulli_derivative
    ),
    "clamped_bernoulli": PixelLikelihood(_clamped, _clamped_derivative),
}
