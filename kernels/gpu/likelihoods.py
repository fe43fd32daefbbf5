"""The likelihoods p(x | out) per pixel: log-density and its derivative, elementwise on a tile.

As vaefast/reference/likelihoods.py derives them: the Bernoulli family is folded at out = 0, so
that no two large numbers are subtracted. Both err by at most a few units in the last place of
1 + |value|, in float32 and in float64.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from vaefast.kernels.elementary import (
    NAN_ALL,
    exp_of_minus,
    log,
    log1p_unit,
    polynomial,
    reciprocal_above_one,
)

__all__ = ["constant", "log_density"]

CLAMP = tl.constexpr(math.log((1.0 - 1e-5) / 1e-5))  # |logit| where the clamped Bernoulli stops
_SERIES = (  # B₂ₖ/(2k)!: ½ − Σ b_k u²ᵏ⁻¹ is the continuous Bernoulli's mean at logit −u
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000,
)  # fmt: skip
MEAN_SERIES_64 = tl.constexpr(_SERIES)
MEAN_SERIES_32 = tl.constexpr(_SERIES[:4])
LOG_SERIES_64 = tl.constexpr(tuple(b / (2 * k) for k, b in enumerate(_SERIES, 1)))
LOG_SERIES_32 = tl.constexpr(tuple(b / (2 * k) for k, b in enumerate(_SERIES[:4], 1)))


def constant(likelihood: str, obs_std: float) -> float:
    """The part of log p per pixel that depends on neither out nor x, in nats."""
    return -math.log(obs_std) - 0.5 * math.log(2 * math.pi) if likelihood == "gaussian" else 0.0


@triton.jit
def log_density(out, x, LIKELIHOOD: tl.constexpr, obs_std):
    """(log p, d log p / d out) per pixel, the former less ``constant``.

    NaN in either input gives NaN; an infinite one gives infinity, NaN or a limit: callers that
    flag bad rows add 0·out + 0·x.

    Args:
        out: natural parameters, a tile of any shape: logits, or the Gaussian's mean.
        x: pixels, in out's shape and dtype.
        LIKELIHOOD: a name of ``vaefast.types.LIKELIHOODS``.
        obs_std: a scalar, used by the Gaussian alone.
    """
    if LIKELIHOOD == "gaussian":
        inv_std = (1.0 / (tl.zeros([], dtype=tl.float64) + obs_std)).to(out.dtype)
        r = (x - out) * inv_std
        logp, score = -0.5 * r * r, r * inv_std
    elif LIKELIHOOD == "clamped_bernoulli":
        limit = tl.full(out.shape, CLAMP, out.dtype)
        inside = tl.maximum(out, -limit, propagate_nan=NAN_ALL)
        inside = tl.minimum(inside, limit, propagate_nan=NAN_ALL)
        logp, score = _folded(inside, x, False)
        score *= tl.where(tl.abs(out) > limit, 0.0, 1.0).to(out.dtype)
    else:
        tl.static_assert(LIKELIHOOD == "bernoulli" or LIKELIHOOD == "continuous_bernoulli")
        logp, score = _folded(out, x, LIKELIHOOD == "continuous_bernoulli")
    return logp, score


@triton.jit
def _folded(out, x, CONTINUOUS: tl.constexpr):
    """−t·u − A(u) with u = |out|, and its derivative."""
    positive = out > 0
    u = tl.abs(out)
    t = tl.where(positive, 1.0 - x, x)
    if CONTINUOUS:
        normaliser, mean = _continuous_normaliser(u)
    else:
        decay = exp_of_minus(u)
        normaliser, mean = log1p_unit(decay), decay * reciprocal_above_one(decay)
    slope = mean - t
    return tl.fma(-t, u, -normaliser), tl.where(positive, slope, -slope)


@triton.jit
def _continuous_normaliser(u):
    """A(u) = log((1 − e⁻ᵘ)/u) and the mean at logit −u: for u < ½ Taylor series."""
    y = u * u
    if u.dtype == tl.float64:
        log_series, mean_series = polynomial(y, LOG_SERIES_64), polynomial(y, MEAN_SERIES_64)
    else:
        log_series, mean_series = polynomial(y, LOG_SERIES_32), polynomial(y, MEAN_SERIES_32)
    decay = exp_of_minus(u)
    rest = 1.0 - decay
    near = u < 0.5
    normaliser = tl.where(near, tl.fma(y, log_series, -0.5 * u), -log(u / rest))
    mean = tl.where(near, tl.fma(-u, mean_series, 0.5), 1.0 / u - decay / rest)
    return normaliser, mean
