// Elementary functions of a vector. A lane's result depends on that lane alone, NaN gives NaN.
// Errors stay below 2 ulp in float and 2.5 in double, of normal.h's below 6.5 and 8, over every
// range that does not overflow; tests/kernels/test_math.py holds them to it at each level.
#pragma once

#include <cmath>

#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
struct Elementary;

template <>
struct Elementary<float> {
    static constexpr int mantissa = 23;
    static constexpr float smallest = 0x1p-126f;           // normal number
    static constexpr float magic = 0x1.8p23f;              // v + magic − magic rounds v
    static constexpr float exp_low = -104, exp_high = 89;  // exp is 0 below and inf above
    static constexpr float expm1_low = -20;                // expm1 is −1 below
    static constexpr float ln2_low = -2.12194440e-4f;      // ln 2 − 0.693359375
    // (eʳ − 1 − r)/r²
    static constexpr float exp[] = {0.5f, 0.16666512f, 0.041666187f, 0.008369598f, 0.0013951713f};
    // (log(1 + f) − f + f²/2)/f³
    static constexpr float log[] = {0.3333331f,   -0.24999987f, 0.20002227f,
                                    -0.16669253f, 0.14218666f,  -0.12384337f,
                                    0.11872917f,  -0.11789848f, 0.069155395f};
    // (tanh a − a)/a³ as a polynomial of a²
    static constexpr float tanh[] = {-0.33333313f, 0.13332471f, -0.053839248f, 0.021014279f,
                                     -0.00618864f};
};

template <>
struct Elementary<double> {
    static constexpr int mantissa = 52;
    static constexpr double smallest = 0x1p-1022;
    static constexpr double magic = 0x1.8p52;
    static constexpr double exp_low = -746, exp_high = 710;
    static constexpr double expm1_low = -40;
    static constexpr double ln2_low = -2.121944400546905827679e-4;
    static constexpr double exp[] = {0.5000000000000014,     0.16666666666666702,
                                     0.04166666666650302,    0.008333333333305076,
                                     0.0013888888950556253,  0.00019841269921991845,
                                     2.480148602695314e-05,  2.7557212182068012e-06,
                                     2.7632753512119675e-07, 2.5119165687416333e-08};
    // (2·atanh s − 2s)/s³ as a polynomial of s²
    static constexpr double log[] = {0.6666666666666735,  0.399999999994075,   0.28571428744140237,
                                     0.22222198378509833, 0.18183575167034005, 0.15313755658261155,
                                     0.14799067597985538};
    static constexpr double tanh[] = {
        -0.3333333333333184,     0.13333333333101163,  -0.05396825384317992,  0.021869485194734486,
        -0.008863184104132492,   0.0035916363921336,   -0.001452807540207825, 0.0005779306270078928,
        -0.00020834412587964835, 4.967652403364189e-05};
};

template <typename T>
constexpr T ln2_high = T(0.693359375);  // few bits: n·ln2_high is exact

// Σ c[i]·xⁱ
template <typename T, int N>
VAEFAST_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x) {
    Vec<T> sum = broadcast(c[N - 1]);
#pragma GCC unroll 32
    for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, broadcast(c[i]));
    return sum;
}

template <typename T>
VAEFAST_INLINE Vec<T> absolute(Vec<T> v) {
    return (Vec<T>)((Bits<T>)v & ~(Bits<T>)broadcast(T(-0.0)));
}

// |v| with the sign of s.
template <typename T>
VAEFAST_INLINE Vec<T> with_sign(Vec<T> v, Vec<T> s) {
    const Bits<T> sign = (Bits<T>)broadcast(T(-0.0));
    return (Vec<T>)(((Bits<T>)v & ~sign) | ((Bits<T>)s & sign));
}

// eˣ = 2ⁿ·(1 + q)
template <typename T>
struct Exponential {
    Vec<T> n, q;
};

// Of high + low, where |low| is small; the multiple of ln 2 is subtracted from `high` exactly.
template <typename T>
VAEFAST_INLINE Exponential<T> exponential(Vec<T> high, Vec<T> low) {
    using E = Elementary<T>;
    const Vec<T> n = fma(high + low, broadcast(T(M_LOG2E)), broadcast(E::magic)) - E::magic;
    const Vec<T> exact = fma(n, broadcast(-ln2_high<T>), high);
    const Vec<T> r = fma(n, broadcast(-E::ln2_low), exact) + low;
    return {n, fma(r * r, polynomial<T>(E::exp, r), r)};
}

template <typename T>
VAEFAST_INLINE Exponential<T> exponential(Vec<T> x) {
    using E = Elementary<T>;
    const Vec<T> n = fma(x, broadcast(T(M_LOG2E)), broadcast(E::magic)) - E::magic;
    const Vec<T> exact = fma(n, broadcast(-ln2_high<T>), x);
    const Vec<T> r = fma(n, broadcast(-E::ln2_low), exact);
    return {n, fma(r * r, polynomial<T>(E::exp, r), r)};
}

template <typename T>
VAEFAST_INLINE Vec<T> value(const Exponential<T>& e) {
    return scale(T(1) + e.q, e.n);
}

template <typename T>
VAEFAST_INLINE Vec<T> exp(Vec<T> x) {
    using E = Elementary<T>;
    const Vec<T> inside = min(broadcast(E::exp_high), max(broadcast(E::exp_low), x));
    return value<T>(exponential<T>(inside));
}

// exp(−v) of a v ≥ 0
template <typename T>
VAEFAST_INLINE Vec<T> exp_of_minus(Vec<T> v) {
    return value<T>(exponential<T>(max(broadcast(Elementary<T>::exp_low), -v)));
}

// eˣ − 1
template <typename T>
VAEFAST_INLINE Vec<T> expm1(Vec<T> x) {
    using E = Elementary<T>;
    const Vec<T> inside = min(broadcast(E::exp_high), max(broadcast(E::expm1_low), x));
    const Exponential<T> e = exponential<T>(inside);
    const Vec<T> half = scale(broadcast(T(0.5)), e.n);  // half of 2ⁿ, which may overflow
    const Vec<T> result = T(2) * fma(e.q, half, half - T(0.5));
    return absolute<T>(x) < broadcast(T(1e-30)) ? x : result;  // keeps −0 and denormals
}

// log(1 + f) + k·ln 2, where √½ − 1 ≤ f ≤ √2 − 1
VAEFAST_INLINE Vec<float> log_near_one(Vec<float> f, Vec<float> k) {
    using E = Elementary<float>;
    const Vec<float> square = f * f, cube = f * square;
    const Vec<float> low = fma(polynomial<float>(E::log, f), cube, k * E::ln2_low);
    return fma(k, broadcast(ln2_high<float>), fma(broadcast(-0.5f), square, low) + f);
}
VAEFAST_INLINE Vec<double> log_near_one(Vec<double> f, Vec<double> k) {
    using E = Elementary<double>;
    const Vec<double> s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    const Vec<double> low = fma(s, fma(polynomial<double>(E::log, z), z, half), k * E::ln2_low);
    return fma(k, broadcast(ln2_high<double>), f - (half - low));
}

template <typename T>
VAEFAST_INLINE Vec<T> log(Vec<T> x) {
    using E = Elementary<T>;
    const Vec<T> zero = {}, infinity = broadcast(T(INFINITY));
    constexpr T step = T(int64_t(1) << E::mantissa);
    const auto denormal = x < broadcast(E::smallest);
    const Vec<T> normal = denormal ? x * step : x;
    // the exponent is counted from √½
    const Bits<T> offset = (Bits<T>)normal - (Bits<T>)broadcast(T(M_SQRT1_2));
    const Bits<T> exponent = offset >> E::mantissa;
    const Vec<T> m = (Vec<T>)((Bits<T>)normal - (exponent << E::mantissa));
    const Vec<T> counted = (Vec<T>)(exponent + (Bits<T>)broadcast(E::magic)) - E::magic;
    const Vec<T> k = denormal ? counted - T(E::mantissa) : counted;
    const Vec<T> result = log_near_one(m - T(1), k);
    const Vec<T> special = x == zero ? -infinity : x < zero ? broadcast(T(NAN)) : x;
    return (x > zero) & (x < infinity) ? result : special;
}

// log(1 + u) of 0 ≤ u ≤ 1
template <typename T>
VAEFAST_INLINE Vec<T> log1p_unit(Vec<T> u) {
    const Vec<T> zero = {}, one = zero + T(1);
    const auto above = u > broadcast(T(M_SQRT2 - 1));
    return log_near_one(above ? T(0.5) * (u - one) : u, above ? one : zero);
}

// A function's value and its derivative.
template <typename T>
struct Slope {
    Vec<T> value, slope;
};

template <typename T>
VAEFAST_INLINE Slope<T> tanh_slope(Vec<T> a) {
    const Vec<T> size = absolute<T>(a), square = a * a;
    const Vec<T> s = exp_of_minus<T>(size + size), r = T(2) / (T(1) + s);
    const Vec<T> near = fma(polynomial<T>(Elementary<T>::tanh, square), square * size, size);
    const Vec<T> far = fma(-s, r, broadcast(T(1)));
    const Vec<T> result = size < broadcast(T(0.5625)) ? near : far;
    return {with_sign<T>(result, a), r * r * s};
}

// 1/(1 + u) of 0 ≤ u ≤ 1: the rounding of 1 + u is made good.
template <typename T>
VAEFAST_INLINE Vec<T> reciprocal_above_one(Vec<T> u) {
    const Vec<T> one = broadcast(T(1)), r = one / (one + u);
    return fma(fma(-u, r, one - r), r, r);
}

// The logistic function; `size` is exp(−|a|), shared with softplus.
template <typename T>
VAEFAST_INLINE Slope<T> sigmoid_slope(Vec<T> a, Vec<T> size) {
    const Vec<T> zero = {}, larger = reciprocal_above_one<T>(size), smaller = size * larger;
    return {a < zero ? smaller : larger, smaller * larger};
}

template <typename T>
VAEFAST_INLINE Slope<T> sigmoid_slope(Vec<T> a) {
    return sigmoid_slope<T>(a, exp_of_minus<T>(absolute<T>(a)));
}

// log(1 + eᵃ)
template <typename T>
VAEFAST_INLINE Slope<T> softplus_slope(Vec<T> a) {
    const Vec<T> zero = {}, size = exp_of_minus<T>(absolute<T>(a));
    return {max(zero, a) + log1p_unit<T>(size), sigmoid_slope<T>(a, size).value};
}

template <typename T>
VAEFAST_INLINE Vec<T> tanh(Vec<T> a) {
    return tanh_slope<T>(a).value;
}
template <typename T>
VAEFAST_INLINE Vec<T> sigmoid(Vec<T> a) {
    return sigmoid_slope<T>(a).value;
}
template <typename T>
VAEFAST_INLINE Vec<T> softplus(Vec<T> a) {
    return softplus_slope<T>(a).value;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
