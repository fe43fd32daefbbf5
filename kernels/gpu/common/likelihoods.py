"""The likelihoods p(x | out) per pixel: log-density and its derivative, elementwise on a tile.

As vaefast/functional/likelihoods.py derives them: the Bernoulli family is folded at out = 0, so
that no two large numbers are subtracted. Both err by at most a few units in the last place of
1 + |value|, in float32 and in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS, valid
from vaefast.kernels.common.elementary import (
    NAN_ALL,
    exp_of_minus,
    log,
    log1p_unit,
    polynomial,
    reciprocal_above_one,
)

__all__ = ["Parameters", "constant_at", "log_density", "parameters_of", "std_at"]

CLAMP = tl.constexpr(math.log((1.0 - 1e-5) / 1e-5))  # |logit| where the clamped Bernoulli stops
_SERIES = (  # B₂ₖ/(2k)!: ½ − Σ b_k u²ᵏ⁻¹ is the continuous Bernoulli's mean at logit −u
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000,
)  # fmt: skip
MEAN_SERIES_64 = tl.constexpr(_SERIES)
MEAN_SERIES_32 = tl.constexpr(_SERIES[:4])
LOG_SERIES_64 = tl.constexpr(tuple(b / (2 * k) for k, b in enumerate(_SERIES, 1)))
LOG_SERIES_32 = tl.constexpr(tuple(b / (2 * k) for k, b in enumerate(_SERIES[:4], 1)))


class Parameters(NamedTuple):
    """A likelihood's parameters in a launch; None and 0 where it has none."""

    p_std: Tensor | None  # [], [D] or [B, D] by its strides
    p_constant: Tensor | None  # [B] float64: of a row, less its pixels' terms; NaN if unusable
    s_std: int
    c_std: int


def parameters_of(likelihood: str, parameters: list[Tensor], x: Tensor) -> Parameters:
    """The arguments of a kernel for images x [B, D]."""
    if not parameters:
        return Parameters(None, None, 0, 0)
    (std,) = parameters
    constant = PIXEL_LIKELIHOODS[likelihood].constant(x.shape[1], std)
    constant = torch.where(valid(parameters, len(x), x), constant, torch.nan)
    rows, columns = (std.stride() if std.ndim == 2 else (0, *std.stride(), 0))[:2]
    return Parameters(std, constant, rows, columns)


@triton.jit
def std_at(p_std, a, m, LIKELIHOOD: tl.constexpr):
    """The Gaussian's standard deviations at offsets ``a``, a tile; 1 for the others."""
    std = 1.0
    if LIKELIHOOD == "gaussian":
        std = tl.load(p_std + a, mask=m, other=1.0)
    return std


@triton.jit
def constant_at(p_constant, i_x, m, LIKELIHOOD: tl.constexpr):
    """The constants of rows of x [len(i_x)] float64; NaN where a parameter is unusable."""
    constant = tl.zeros(i_x.shape, dtype=tl.float64)
    if LIKELIHOOD == "gaussian":
        constant = tl.load(p_constant + i_x, mask=m, other=0.0)
    return constant


@triton.jit
def log_density(out, x, LIKELIHOOD: tl.constexpr, std):
    """(log p, d log p / d out) per pixel, the former less :func:`constant_at`.

    NaN in either input gives NaN; an infinite one gives infinity, NaN or a limit: callers that
    flag non-finite rows add 0·out + 0·x.

    Args:
        out: natural parameters, a tile of any shape: logits, or the Gaussian's mean.
        x: pixels, in out's shape and dtype.
        LIKELIHOOD: a name of ``vaefast.types.LIKELIHOODS``.
        std: from :func:`std_at`, used by the Gaussian alone.
    """
    if LIKELIHOOD == "gaussian":
        inv_std = 1.0 / std
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
