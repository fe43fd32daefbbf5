"""Counter-based random numbers, Philox 4x32-10: the integers and normals of vaefast.philox.

    key     = (seed bits 0-31, seed bits 32-63)
    counter = (element // 4, step, index bits 0-31, use << 24 | lane << 12 | index bits 32-43)

All functions take integers or integer tensors that broadcast against each other (``index`` int64),
and the seed as two 32-bit words, signed or not; kernels name them in ``do_not_specialize``. The
integers are those of every backend; uniforms are exact; normals, in float32, err by less than
1.5e-6: both logarithm and angle start from integers, so that nothing cancels.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.common.elementary import log_near_one, polynomial, split_at_root_half

__all__ = ["bits", "block", "box_muller", "normal", "normals", "uniform"]

# (sin a − a)/a³ and (cos a − 1 + a²/2)/a⁴ as polynomials of a², |a| ≤ π/4
SINE = tl.constexpr((-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4))
COSINE = tl.constexpr((4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5))
ANGLE = tl.constexpr(1.4629180792671596e-09)  # 2π·2⁻³²
BELOW_ROOT_HALF = tl.constexpr(0.29289322)  # 1 − √½


@triton.jit
def block(number, step, index, use, lane, seed_low, seed_high):
    """The four 32-bit words of elements 4·number to 4·number + 3."""
    index = tl.zeros([], dtype=tl.int64) + index
    top = (index >> 32).to(tl.uint32)
    return tl.philox_impl(
        _word(number), _word(step), index.to(tl.uint32),
        (_word(use) << 24) | (_word(lane) << 12) | top,
        _word(seed_low), _word(seed_high),
    )  # fmt: skip


@triton.jit
def _word(v):
    return (tl.zeros([], dtype=tl.int64) + v).to(tl.uint32)


@triton.jit
def bits(element, step, index, use, lane, seed_low, seed_high):
    """One 32-bit integer per element, uint32."""
    k0, k1, k2, k3 = block(element // 4, step, index, use, lane, seed_low, seed_high)
    place = element % 4
    return tl.where(place == 0, k0, tl.where(place == 1, k1, tl.where(place == 2, k2, k3)))


@triton.jit
def uniform(element, step, index, use, lane, seed_low, seed_high):
    """(k + ½)·2⁻³² in the open interval (0, 1), float64."""
    k = bits(element, step, index, use, lane, seed_low, seed_high)
    return (k.to(tl.float64) + 0.5) * 2.3283064365386963e-10


@triton.jit
def normal(element, step, index, use, lane, seed_low, seed_high):
    """One standard normal per element, float32, by Box-Muller on its pair of words."""
    k0, k1, k2, k3 = block(element // 4, step, index, use, lane, seed_low, seed_high)
    later = element % 4 >= 2
    quarter, sine, cosine = _angle(tl.where(later, k3, k1))
    quarter -= element % 2  # sin a = cos(a − π/2)
    return _radius(tl.where(later, k2, k0)) * _turned(quarter, sine, cosine)


@triton.jit
def normals(number, step, index, use, lane, seed_low, seed_high):
    """The normals of elements 4·number to 4·number + 3, from one block of words."""
    k0, k1, k2, k3 = block(number, step, index, use, lane, seed_low, seed_high)
    n0, n1 = box_muller(k0, k1)
    n2, n3 = box_muller(k2, k3)
    return n0, n1, n2, n3


@triton.jit
def box_muller(u, v):
    """Two normals of two words."""
    radius = _radius(u)
    quarter, sine, cosine = _angle(v)
    return radius * _turned(quarter, sine, cosine), radius * _turned(quarter - 1, sine, cosine)


@triton.jit
def _radius(k):
    """√(−2 log u) of u = (k + ½)·2⁻³²; above ½ from 1 − u, which is as exact."""
    upper = k >= 0x80000000
    w = (tl.where(upper, 0xFFFFFFFF - k, k).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    f, e = split_at_root_half(w)
    close = w < BELOW_ROOT_HALF
    f = tl.where(upper, tl.where(close, -w, tl.fma(w, -2.0, 1.0)), f)
    e = tl.where(upper, tl.where(close, 0.0, -1.0), e)
    return tl.sqrt(-2.0 * log_near_one(f, e))


@triton.jit
def _angle(k):
    """2π·(k + ½)·2⁻³² = quarter·π/2 + a, |a| ≤ π/4: quarter, sin a and cos a."""
    quarter = ((k + 0x20000000) >> 30).to(tl.int32)
    rest = k.to(tl.int32, bitcast=True) - (quarter << 30)
    a = (rest.to(tl.float32) + 0.5) * ANGLE
    square = a * a
    sine = tl.fma(polynomial(square, SINE), a * square, a)
    cosine = tl.fma(polynomial(square, COSINE), square * square, tl.fma(square, -0.5, 1.0))
    return quarter, sine, cosine


@triton.jit
def _turned(quarter, sine, cosine):
    """cos(quarter·π/2 + a)"""
    value = tl.where(quarter & 1 != 0, sine, cosine)
    return tl.where((quarter + 1) & 2 != 0, -value, value)
