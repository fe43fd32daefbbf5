"""The activations of an MLP's layer and their slopes, elementwise on a tile.

Slopes come from the pre-activation: 1 − h² or h(1 − h) would cancel. Values and slopes err by a
few units in the last place (elu, selu, tanh, sigmoid, softplus and exp_half by at most 6, also
where a unit saturates); slopes that cross 0 (silu, gelu, mish, hardswish) by that of the larger of
themselves and ¼.
NaN gives NaN, but for the slopes of the piecewise linear ones.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.elementary import (
    NAN_ALL,
    exp,
    exp_below,
    exp_of_minus,
    log1p_unit,
    normal_distribution,
    reciprocal_above_one,
    tanh,
)

__all__ = ["activate", "through"]

ROOT_8_OVER_PI = tl.constexpr(1.59576912160573071)
CUBIC = tl.constexpr(0.044715)
SELU_SCALE = tl.constexpr(1.0507009873554805)
SELU_BELOW = tl.constexpr(1.7580993408473768)  # times its alpha
SIXTH = tl.constexpr(1 / 6)


@triton.jit
def activate(v, i_out, WIDTH: tl.constexpr, ACT: tl.constexpr, PARAM: tl.constexpr):
    """(y, s): y = φ(v) and s = φ'(v).

    Args:
        v: pre-activations [BLOCK_M, BLOCK_N] of features ``i_out``.
        i_out: [BLOCK_M], consecutive features, the first of them even.
        WIDTH: features of the layer; the last of an odd number has no partner in maxmin.
        ACT: a name of ``vaefast.functional.activations``, e.g. ``"tanh"``.
        PARAM: its parameters as a pair: the slope of leaky_relu, elu's alpha, clamp's ends.

    For maxmin s is 1 where the feature keeps its place and 0 where its pair is swapped.
    """
    if ACT == "identity":
        y, s = v, tl.full(v.shape, 1.0, v.dtype)
    elif ACT == "relu":
        y, s = tl.maximum(v, 0.0, propagate_nan=NAN_ALL), tl.where(v > 0, 1.0, 0.0)
    elif ACT == "leaky_relu":
        s = tl.where(v > 0, 1.0, tl.full(v.shape, PARAM[0], v.dtype))
        y = tl.where(v > 0, v, PARAM[0] * v)
    elif ACT == "elu":
        y, s = _elu(v, PARAM[0])
    elif ACT == "tanh":
        y, s = _tanh(v)
    elif ACT == "sigmoid":
        y, s = _sigmoid(v, exp_of_minus(tl.abs(v)))
    elif ACT == "softplus":
        size = exp_of_minus(tl.abs(v))
        y = tl.maximum(v, 0.0, propagate_nan=NAN_ALL) + log1p_unit(size)
        s, _ = _sigmoid(v, size)
    elif ACT == "silu":
        y, s = _silu(v)
    elif ACT == "gelu":
        cdf, density = normal_distribution(v)
        y, s = v * cdf, tl.fma(v, density, cdf)
    elif ACT == "gelu_tanh":
        y, s = _gelu_tanh(v)
    elif ACT == "exp_half":
        y = exp(0.5 * v)
        s = 0.5 * y
    elif ACT == "clamp":
        y, s = _clamp(v, PARAM[0], PARAM[1])
    elif ACT == "hardswish":
        y, s = _hardswish(v)
    elif ACT == "mish":
        y, s = _mish(v)
    elif ACT == "selu":
        y, s = _selu(v)
    else:
        tl.static_assert(ACT == "maxmin", "unknown activation")
        y, s = _maxmin(v, i_out, WIDTH)
    return y, s


@triton.jit
def through(dy, s, i_out, WIDTH: tl.constexpr, ACT: tl.constexpr):
    """The gradient in v from that in y, both [BLOCK_M, BLOCK_N]; the rest as in ``activate``."""
    if ACT == "identity":
        dv = dy
    elif ACT == "maxmin":
        dv = tl.where(s > 0, dy, swap_pairs(dy))
    else:
        dv = dy * s
    return dv


@triton.jit
def swap_pairs(v):
    """[BLOCK_M, BLOCK_N] with rows 2i and 2i + 1 exchanged."""
    M: tl.constexpr = v.shape[0]
    N: tl.constexpr = v.shape[1]
    first, second = tl.split(tl.permute(tl.reshape(v, [M // 2, 2, N]), (0, 2, 1)))
    return tl.reshape(tl.permute(tl.join(second, first), (0, 2, 1)), [M, N])


@triton.jit
def _maxmin(v, i_out, WIDTH: tl.constexpr):
    """The larger of each pair first; a tie keeps its order, and NaN swaps."""
    other = swap_pairs(v)
    first = (i_out % 2 == 0)[:, None]
    alone = (i_out // 2 * 2 + 1 >= WIDTH)[:, None]
    keeps = tl.where(first, v >= other, other >= v) | alone
    return tl.where(keeps, v, other), tl.where(keeps, 1.0, 0.0)


@triton.jit
def _elu(v, ALPHA: tl.constexpr):
    below, power = exp_below(v)
    return tl.where(v > 0, v, ALPHA * below), tl.where(v > 0, 1.0, ALPHA * power)


@triton.jit
def _tanh(v):
    decay = exp_of_minus(2.0 * tl.abs(v))
    r = reciprocal_above_one(decay)
    return tanh(v), 4.0 * r * r * decay


@triton.jit
def _sigmoid(v, size):
    """Logistic function and slope of v; ``size`` is exp(−|v|)."""
    larger = reciprocal_above_one(size)
    smaller = size * larger
    return tl.where(v < 0, smaller, larger), smaller * larger


@triton.jit
def _silu(v):
    size = exp_of_minus(tl.abs(v))
    larger = reciprocal_above_one(size)
    smaller = size * larger
    s, other = tl.where(v < 0, smaller, larger), tl.where(v < 0, larger, smaller)
    return v * s, s * tl.fma(v, other, 1.0)


@triton.jit
def _gelu_tanh(v):
    """v·σ(u), u = √(8/π)·(v + 0.044715·v³)"""
    inside = tl.clamp(v, -64.0, 64.0, propagate_nan=NAN_ALL)  # σ(u) is 0 or 1 beyond
    square = inside * inside
    u = ROOT_8_OVER_PI * inside * (CUBIC * square + 1.0)
    s, slope = _sigmoid(u, exp_of_minus(tl.abs(u)))
    du = ROOT_8_OVER_PI * (3.0 * CUBIC * square + 1.0)
    return v * s, tl.fma(inside * du, slope, s)


@triton.jit
def _clamp(v, LOW: tl.constexpr, HIGH: tl.constexpr):
    low, high = tl.full(v.shape, LOW, v.dtype), tl.full(v.shape, HIGH, v.dtype)
    y = tl.minimum(tl.maximum(v, low, propagate_nan=NAN_ALL), high, propagate_nan=NAN_ALL)
    return y, tl.where((v >= low) & (v <= high), 1.0, 0.0)


@triton.jit
def _hardswish(v):
    gate = tl.clamp(v + 3.0, 0.0, 6.0, propagate_nan=NAN_ALL) * SIXTH
    s = tl.where(v >= 3.0, 1.0, tl.where(v <= -3.0, 0.0, (v + v + 3.0) * SIXTH))
    return v * gate, s


@triton.jit
def _mish(v):
    """v·t, t = tanh(softplus v) = n/(n + 2), n = e²ᵛ + 2eᵛ, both scaled by e⁻²ᵛ where v ≥ 0"""
    u = exp_of_minus(tl.abs(v))
    n = tl.where(v < 0, u * (u + 2.0), 2.0 * u + 1.0)
    r = 1.0 / (n + tl.where(v < 0, 2.0, 2.0 * u * u))
    t = n * r
    rate = 4.0 * tl.where(v < 0, u, u * u) * (1.0 + u) * r * r
    return v * t, tl.fma(v, rate, t)


@triton.jit
def _selu(v):
    below, power = exp_below(v)
    y = tl.where(v > 0, SELU_SCALE * v, SELU_BELOW * below)
    return y, tl.where(v > 0, SELU_SCALE, SELU_BELOW * power)
