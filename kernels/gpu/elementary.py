"""Elementary functions of float32 and float64 tensors, as csrc/simd/ has them.

Polynomials instead of the GPU's approximate instructions: ``tl.exp`` rounds x·log₂e first, which
costs |x|/2 units in the last place, and ``tl.sin`` needs memory for its range. An element's result
depends on that element alone, NaN gives NaN, and products that meet a sum are fused by name, so
that no compiler chooses. Errors stay below 2 units in the last place (the normal distribution's:
6.5) wherever the result is a normal number; what would be smaller than 2⁻¹²⁶ is 0, but for ``exp``.

In float64 the GPU's own functions serve, which are accurate there.
"""

from __future__ import annotations

import triton
import triton.language as tl

NAN_ALL = tl.constexpr(tl.PropagateNan.ALL)
INFINITY = tl.constexpr(float("inf"))
LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693359375)  # few bits: n·LN2_HIGH is exact
LN2_LOW = tl.constexpr(-2.12194440e-4)
MAGIC = tl.constexpr(12582912.0)  # 1.5·2²³: v + MAGIC is v rounded, in its low bits
MAGIC_BITS = tl.constexpr(0x4B400000)
ONE_BITS = tl.constexpr(0x3F800000)
ROOT_HALF_BITS = tl.constexpr(0x3F3504F3)
ROOT_HALF = tl.constexpr(0.7071067811865476)
ROOT_1_OVER_2_PI = tl.constexpr(0.3989422804014327)
VANISHES = tl.constexpr(87.3)  # exp(−v) of a larger v is taken for 0
# (eʳ − 1 − r)/r²
EXP = tl.constexpr((0.5, 0.16666512, 0.041666187, 0.008369598, 0.0013951713))
# (log(1 + f) − f + f²/2)/f³
LOG = tl.constexpr((
    0.3333331, -0.24999987, 0.20002227, -0.16669253, 0.14218666, -0.12384337, 0.11872917,
    -0.11789848, 0.069155395,
))  # fmt: skip
# (tanh a − a)/a³ as a polynomial of a²
TANH = tl.constexpr((-0.33333313, 0.13332471, -0.053839248, 0.021014279, -0.00618864))
# Φ(a) = ½ + a·C(a²) for |a| ≤ ¾, and Φ(−a) = exp(−a²/2)·s·P(2s − 1), s = 4/(a + 4), for a ≥ 0
CENTRED = tl.constexpr((0.3989423, -0.06649029, 0.009972349, -0.001181285, 0.000102940576))
TAIL = tl.constexpr((
    0.18882129, 0.15197414, 0.09678423, 0.04663086, 0.015100958, 0.0018813178, -0.0008781378,
    -0.00039248096, 4.48381e-05, 3.2993106e-05,
))  # fmt: skip


@triton.jit
def polynomial(x, C: tl.constexpr):
    """Σ C[i]·xⁱ"""
    LAST: tl.constexpr = len(C.value) - 1
    total = tl.full(x.shape, C[LAST], x.dtype)
    for i in tl.static_range(1, LAST + 1):
        total = tl.fma(total, x, tl.full(x.shape, C[LAST - i], x.dtype))
    return total


@triton.jit
def _exponential(x, rest):
    """(q, bits) with exp(x + rest) = 2ⁿ·(1 + q), n in the low bits; rest is small or None."""
    both = x if rest is None else x + rest
    shifted = tl.fma(both, LOG2E, MAGIC)
    n = shifted - MAGIC
    r = tl.fma(n, -LN2_LOW, tl.fma(n, -LN2_HIGH, x))
    if rest is not None:
        r += rest
    return tl.fma(r * r, polynomial(r, EXP), r), shifted.to(tl.int32, bitcast=True)


@triton.jit
def _power(bits):
    """2ⁿ of the bits of n + MAGIC, for −126 ≤ n ≤ 127."""
    return ((bits << 23) + ONE_BITS).to(tl.float32, bitcast=True)


@triton.jit
def exp(x):
    """eˣ, with gradual underflow."""
    if x.dtype == tl.float64:
        value = tl.exp(x)
    else:
        q, bits = _exponential(x, None)
        n = bits - MAGIC_BITS
        half = n >> 1
        value = (1.0 + q) * _power(half) * _power(n - half)
        value = tl.where(x > 89.0, INFINITY, tl.where(x < -104.0, 0.0, value))
    return value


@triton.jit
def exp_of_minus(v):
    """exp(−v) of a v ≥ 0"""
    if v.dtype == tl.float64:
        value = tl.exp(-v)
    else:
        q, bits = _exponential(-v, None)
        value = tl.where(v > VANISHES, 0.0, (1.0 + q) * _power(bits))
    return value


@triton.jit
def exp_below(x):
    """(eˣ − 1, eˣ) of an x ≤ 0; anything for a larger one"""
    if x.dtype == tl.float64:
        value = tl.exp(x)
        safe = tl.where((value > 0) & (value < 1), value, 0.5)
        exact = (value - 1.0) * x / tl.log(safe)  # the errors of eˣ cancel in the quotient
        less_one = tl.where(value == 1.0, x, tl.where(value > 0, exact, value - 1.0))
    else:
        q, bits = _exponential(x, None)
        power = _power(bits)
        small = x < -VANISHES
        value = tl.where(small, 0.0, (1.0 + q) * power)
        less_one = tl.where(small, -1.0, tl.fma(q, power, power - 1.0))
    return less_one, value


@triton.jit
def tanh(v):
    """tanh v"""
    if v.dtype == tl.float64:
        less_one, _ = exp_below(-2.0 * tl.abs(v))
        size = -less_one / (2.0 + less_one)
        value = tl.where(v < 0, -size, size)
    else:
        square = v * v
        decay = exp_of_minus(2.0 * tl.abs(v))
        near = tl.fma(polynomial(square, TANH) * square, v, v)
        far = tl.fma(-2.0 * decay, reciprocal_above_one(decay), tl.full(v.shape, 1.0, v.dtype))
        value = tl.where(tl.abs(v) < 0.5625, near, tl.where(v < 0, -far, far))
    return value


@triton.jit
def log_near_one(f, k):
    """log(1 + f) + k·ln 2, where √½ − 1 ≤ f ≤ √2 − 1"""
    square = f * f
    low = tl.fma(polynomial(f, LOG), f * square, k * LN2_LOW)
    return tl.fma(k, LN2_HIGH, tl.fma(square, -0.5, low) + f)


@triton.jit
def split_at_root_half(x):
    """(f, k) with x = (1 + f)·2ᵏ for log_near_one, of a normal x > 0"""
    bits = x.to(tl.int32, bitcast=True)
    k = (bits - ROOT_HALF_BITS) >> 23
    return (bits - (k << 23)).to(tl.float32, bitcast=True) - 1.0, k.to(tl.float32)


@triton.jit
def log(x):
    """log x of a normal x > 0 or infinity"""
    if x.dtype == tl.float64:
        value = tl.log(x)
    else:
        f, k = split_at_root_half(x)
        value = tl.where(x < INFINITY, log_near_one(f, k), x)
    return value


@triton.jit
def log1p_unit(u):
    """log(1 + u) of 0 ≤ u ≤ 1"""
    if u.dtype == tl.float64:
        w = 1.0 + u
        value = tl.log(w) + (u - (w - 1.0)) / w  # what the sum 1 + u lost
    else:
        above = u > 0.41421356
        value = log_near_one(tl.where(above, 0.5 * u - 0.5, u), tl.where(above, 1.0, 0.0))
    return value


@triton.jit
def reciprocal_above_one(u):
    """1/(1 + u) of 0 ≤ u ≤ 1: one Newton step repairs the sum and the GPU's division."""
    r = 1.0 / (1.0 + u)
    return tl.fma(tl.fma(-u, r, 1.0 - r), r, r)


@triton.jit
def normal_distribution(a):
    """Φ(a) and its density, accurate in the tails (float64: to 1e-16 of 1)."""
    if a.dtype == tl.float64:
        value = 0.5 + 0.5 * tl.erf(a * ROOT_HALF)
        density = ROOT_1_OVER_2_PI * tl.exp(-0.5 * a * a)
    else:
        value, density = _normal_distribution_32(a)
    return value, density


@triton.jit
def _normal_distribution_32(a):
    size = tl.minimum(tl.abs(a), 14.5, propagate_nan=NAN_ALL)
    head = (size.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
    rest = -0.5 * (size - head) * (size + head)  # the square of head is exact
    q, bits = _exponential(-0.5 * head * head, rest)
    e = tl.where(size > 13.2, 0.0, (1.0 + q) * _power(bits))
    about = 4.0 / (size + 4.0)
    s = tl.fma(tl.fma(-about, size, tl.fma(about, -4.0, 4.0)), 0.25 * about, about)
    tail = e * (s * polynomial(s + s - 1.0, TAIL))
    centred = tl.fma(a, polynomial(a * a, CENTRED), 0.5)
    far = tl.where(a < 0, tail, 1.0 - tail)
    return tl.where(size < 0.75, centred, far), e * ROOT_1_OVER_2_PI
