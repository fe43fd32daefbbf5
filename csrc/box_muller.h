// Box-Muller in double: vectorised log and sincos, polynomials of fdlibm.
#pragma once

#include "simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Σ c[i]·x^i
template <int64_t N>
VAEFAST_INLINE Vec<double> horner(Vec<double> x, const double (&c)[N]) {
    Vec<double> sum = broadcast(c[N - 1]);
#pragma GCC unroll 16
    for (int64_t i = N - 2; i >= 0; --i) sum = fma(sum, x, broadcast(c[i]));
    return sum;
}

// log u for normal u > 0, to 1 ulp: u = 2ᵏ·(1 + f), √½ <= 1 + f < √2, log(1 + f) by its series in
// s = f/(2 + f).
VAEFAST_INLINE Vec<double> log_normal_range(Vec<double> u) {
    constexpr double series[] = {6.666666666666735130e-01, 3.999999999940941908e-01,
                                 2.857142874366239149e-01, 2.222219843214978396e-01,
                                 1.818357216161805012e-01, 1.531383769920937332e-01,
                                 1.479819860511658591e-01};
    const Vec<uint64_t> bits = (Vec<uint64_t>)u;
    const Vec<uint64_t> biased = (bits + (0x3FF0000000000000u - 0x3FE6A09E667F3BCDu)) >> 52;
    const Vec<double> k = (Vec<double>)(biased | 0x4330000000000000u) - (0x1p52 + 1023);
    const Vec<double> f = (Vec<double>)(bits - ((biased - 1023) << 52)) - 1.0;
    const Vec<double> s = f / (f + 2.0), z = s * s, half = 0.5 * f * f;
    const Vec<double> low = fma(s, fma(z, horner(z, series), half), k * 1.90821492927058770002e-10);
    return fma(k, broadcast(6.93147180369123816490e-01), f - (half - low));
}

// sin and cos of 2πv for 0 <= v <= 1: v = q/4 + r, |r| <= 1/8, exactly.
VAEFAST_INLINE void sincos_turns(Vec<double> v, Vec<double>* sine, Vec<double>* cosine) {
    constexpr double sin_series[] = {-1.66666666666666324348e-01, 8.33333333332248946124e-03,
                                     -1.98412698298579493134e-04, 2.75573137070700676789e-06,
                                     -2.50507602534068634195e-08, 1.58969099521155010221e-10};
    constexpr double cos_series[] = {4.16666666666666019037e-02, -1.38888888888741095749e-03,
                                     2.48015872894767294178e-05, -2.75573143513906633035e-07,
                                     2.08757232129817482790e-09, -1.13596475577881948265e-11};
    const Vec<double> shifted = 4.0 * v + 0x1.8p52;  // rounds to a whole number of quarters
    const Vec<uint64_t> q = (Vec<uint64_t>)shifted;
    const Vec<double> a = (v - 0.25 * (shifted - 0x1.8p52)) * 6.283185307179586;
    const Vec<double> z = a * a;
    const Vec<double> s = fma(a * z, horner(z, sin_series), a);
    const Vec<double> c = fma(z * z, horner(z, cos_series), 1.0 - 0.5 * z);
    const auto odd = (q & 1) != 0;
    *sine = (Vec<double>)((Vec<uint64_t>)(odd ? c : s) ^ (q & 2) << 62);
    *cosine = (Vec<double>)((Vec<uint64_t>)(odd ? s : c) ^ ((q + 1) & 2) << 62);
}

// Two vectors of normals from two of uniforms in (0, 1).
VAEFAST_INLINE void box_muller(Vec<double> u, Vec<double> v, double* first, double* second) {
    Vec<double> sine, cosine;
    sincos_turns(v, &sine, &cosine);
    const Vec<double> radius = sqrt(-2.0 * log_normal_range(u));
    store<double>(first, radius * cosine);
    store<double>(second, radius * sine);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
