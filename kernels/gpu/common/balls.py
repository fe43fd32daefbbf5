"""Norms of rows without overflow or underflow, and points that a ball really holds."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

NAN_ALL = tl.constexpr(tl.PropagateNan.ALL)
TINY = tl.constexpr(torch.finfo(torch.float64).tiny)
SHORT, LIFT = tl.constexpr(2.0**-60), tl.constexpr(2.0**64)
SHORT_64, LIFT_64 = tl.constexpr(2.0**-500), tl.constexpr(2.0**512)


@triton.jit
def inside(y, x, radius):
    """y; or its neighbour towards x, where |y - x|, without any rounding, exceeds the radius."""
    delta = y - x
    shift = delta - y
    error = (y - (delta - shift)) - (x + shift)  # y - x = delta + error (Knuth)
    outside = (tl.abs(delta) - radius) + tl.where(delta < 0, -error, error) > 0
    if y.dtype == tl.float64:
        bits = y.to(tl.int64, bitcast=True)
    else:
        bits = y.to(tl.int32, bitcast=True)
    bits += tl.where(outside, tl.where((y < 0) == (delta < 0), -1, 1), 0).to(bits.dtype)
    return bits.to(y.dtype, bitcast=True)


@triton.jit
def add_block(peak, total, v):
    """Take v [BLOCK_B, BLOCK_D] into (peak, total), with ‖row‖₂ = peak·√total."""
    above = tl.maximum(peak, tl.max(tl.abs(v), axis=1))  # [BLOCK_B]
    safe = tl.where(above > 0, above, 1.0)
    ratio = v / safe[:, None]  # NaN where v is NaN or infinite
    return above, total * (peak / safe) * (peak / safe) + tl.sum(ratio * ratio, axis=1)


@triton.jit
def lifted(peak, ratio, norm_eps):
    """(lift, max(‖g‖, norm_eps)·lift) for ‖g‖ = peak·ratio: no step of a row leaves its range.

    The lift is a power of two, 1 but for very short and very long gradients.
    """
    if peak.dtype == tl.float64:
        lift = tl.where(peak < SHORT_64, LIFT_64, tl.where(peak > 1 / SHORT_64, 1 / LIFT_64, 1.0))
        smallest = tl.maximum(norm_eps, TINY)  # a launch scalar is float32, where TINY is 0
    else:
        lift = tl.where(peak < SHORT, LIFT, tl.where(peak > 1 / SHORT, 1 / LIFT, 1.0))
        smallest = norm_eps
    return lift, tl.maximum(peak * lift * ratio, smallest * lift, propagate_nan=NAN_ALL)


@triton.jit
def shrink(distance, radius):
    """min(1, radius / distance): 1 at distance 0, NaN for NaN."""
    return tl.where(distance <= radius, 1.0, radius / distance)
