"""The likelihoods p(x | out): per-pixel log-density and its derivative, one table.

``out`` holds natural parameters a: logits of the (continuous) Bernoulli, the Gaussian's mean.
The Bernoulli family is folded at a = 0: with u = |a| and t = x for a ≤ 0, 1 − x for a > 0,

    log p = −t·u − A(u),   A(u) = log(1 + e⁻ᵘ)          Bernoulli
                           A(u) = log((1 − e⁻ᵘ) / u)    continuous Bernoulli

so that no two large numbers are subtracted, whatever the size of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "PIXEL_LIKELIHOODS",
    "Curvature",
    "Likelihood",
    "beside_chains",
    "parameter_rows",
    "valid",
]

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


class Curvature(NamedTuple):
    """Second-order terms of log p per pixel, and its slope in x."""

    in_x: Tensor  # d log p / dx
    curvature: Tensor  # d² log p / da²
    mixed: Tensor  # d² log p / da dx


class Likelihood(NamedTuple):
    """One likelihood; out and x broadcast with its parameters, as :func:`beside_chains` gives them.

    Args:
        log_density: (out, x, *parameters) ↦ log p per pixel, less the constant, in nats.
        derivative: (out, x, *parameters) ↦ d log p / d out per pixel.
        second: (out, x, *parameters) ↦ the :class:`Curvature` per pixel.
        constant: (D, *parameters) ↦ the part of log p of a row that depends on neither out nor x:
            float64, [] or [B].
        parameters: their names; each is a scalar, [D] or [B, D], and positive.
    """

    log_density: Callable[..., Tensor]
    derivative: Callable[..., Tensor]
    second: Callable[..., Curvature]
    constant: Callable[..., Tensor | float] = lambda columns: 0.0
    parameters: tuple[str, ...] = ()


def beside_chains(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The parameters as they broadcast with [B, C, D]."""
    return [p.unsqueeze(1) if p.ndim == 2 else p for p in parameters]


def parameter_rows(parameters: Sequence[Tensor], rows: slice) -> list[Tensor]:
    """The parameters of some rows of x."""
    return [p[rows] if p.ndim == 2 else p for p in parameters]


def valid(parameters: Sequence[Tensor], rows: int, like: Tensor) -> Tensor:
    """[rows] bool: every parameter of the row is positive and finite."""
    good = torch.ones(rows, dtype=torch.bool, device=like.device)
    for p in parameters:
        fine = p.isfinite() & (p > 0)
        good = good & (fine.all(dim=-1) if p.ndim else fine)
    return good


def _fold(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    positive = out > 0
    return torch.where(positive, out, -out), torch.where(positive, 1.0 - x, x)  # u, t


def _bernoulli(out: Tensor, x: Tensor) -> Tensor:
    u, t = _fold(out, x)
    return F.logsigmoid(u) - t * u


def _bernoulli_derivative(out: Tensor, x: Tensor) -> Tensor:
    return x - torch.sigmoid(out)


def _clamped(out: Tensor, x: Tensor) -> Tensor:
    return _bernoulli(out.clamp(-CLAMP, CLAMP), x)


def _clamped_derivative(out: Tensor, x: Tensor) -> Tensor:
    return (x - torch.sigmoid(out)) * (out.abs() <= CLAMP)


def _gaussian(out: Tensor, x: Tensor, std: Tensor) -> Tensor:
    return -0.5 * ((x - out) / std).square()


def _gaussian_derivative(out: Tensor, x: Tensor, std: Tensor) -> Tensor:
    return (x - out) / std / std


def _gaussian_second(out: Tensor, x: Tensor, std: Tensor) -> Curvature:
    precision = (1.0 / std / std).expand_as(out)
    return Curvature(-_gaussian_derivative(out, x, std), -precision, precision)


def _gaussian_constant(columns: int, std: Tensor) -> Tensor:
    logs = std.double().log()
    total = logs.sum(dim=-1) if std.ndim else columns * logs
    return -total - 0.5 * columns * math.log(2.0 * math.pi)


def _continuous_bernoulli(out: Tensor, x: Tensor) -> Tensor:
    u, t = _fold(out, x)
    return -t * u - _log_normaliser(u)


def _continuous_bernoulli_derivative(out: Tensor, x: Tensor) -> Tensor:
    u, t = _fold(out, x)
    slope = _mean(u) - t
    return torch.where(out > 0, slope, -slope)


def _log_normaliser(u: Tensor) -> Tensor:
    """log((1 − e⁻ᵘ)/u) for u ≥ 0; near 0 the integral −u/2 + Σ b_k u²ᵏ/(2k) of −_mean."""
    near, far = _apart(u)
    terms = [b / (2 * k) for k, b in enumerate(MEAN_SERIES, start=1)]
    series = -0.5 * near + near * near * _polynomial(near * near, terms)
    return torch.where(u < SERIES_BELOW, series, torch.log(-torch.expm1(-far) / far))


def _mean(u: Tensor) -> Tensor:
    """E[x] at logit −u for u ≥ 0: 1/u − 1/(eᵘ − 1), which falls from ½ to 0."""
    near, far = _apart(u)
    series = 0.5 - near * _polynomial(near * near, MEAN_SERIES)
    decay = torch.exp(-far)
    return torch.where(u < SERIES_BELOW, series, 1.0 / far - decay / (1.0 - decay))


def _polynomial(y: Tensor, coefficients: tuple[float, ...] | list[float]) -> Tensor:
    result = torch.full_like(y, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * y + coefficient
    return result


def _bernoulli_second(out: Tensor, x: Tensor) -> Curvature:
    return Curvature(out, -torch.sigmoid(out) * torch.sigmoid(-out), torch.ones_like(out))


def _apart(u: Tensor) -> tuple[Tensor, Tensor]:
    """u where the series holds and where it does not, the threshold elsewhere.

    No clamp: at the threshold itself the derivative of either is torch's choice.
    """
    near, threshold = u < SERIES_BELOW, u.new_full((), SERIES_BELOW)
    return torch.where(near, u, threshold), torch.where(near, threshold, u)


def _clamped_second(out: Tensor, x: Tensor) -> Curvature:
    inside = (out.abs() <= CLAMP).to(out.dtype)
    curvature = _bernoulli_second(out, x).curvature
    return Curvature(out.clamp(-CLAMP, CLAMP), curvature * inside, inside)


def _continuous_bernoulli_second(out: Tensor, x: Tensor) -> Curvature:
    return Curvature(out, _mean_slope(out.abs()), torch.ones_like(out))


def _mean_slope(u: Tensor) -> Tensor:
    """d/du (1/u − 1/(eᵘ − 1)) = e⁻ᵘ/(1 − e⁻ᵘ)² − 1/u²; near 0 its series −Σ (2k − 1) b_k u²ᵏ⁻²."""
    near, far = _apart(u)
    terms = [-(2 * k - 1) * b for k, b in enumerate(MEAN_SERIES, start=1)]
    decay = torch.exp(-far)
    closed = decay / torch.expm1(-far).square() - 1.0 / far.square()
    return torch.where(u < SERIES_BELOW, _polynomial(near * near, terms), closed)


PIXEL_LIKELIHOODS = {
    "bernoulli": Likelihood(_bernoulli, _bernoulli_derivative, _bernoulli_second),
    "gaussian": Likelihood(
        _gaussian, _gaussian_derivative, _gaussian_second, _gaussian_constant, ("std",)
    ),
    "continuous_bernoulli": Likelihood(
        _continuous_bernoulli, _continuous_bernoulli_derivative, _continuous_bernoulli_second
    ),
    "clamped_bernoulli": Likelihood(_clamped, _clamped_derivative, _clamped_second),
}
