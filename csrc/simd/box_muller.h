// Box-Muller in double; the polynomials of sin and cos are those of fdlibm.
#pragma once

#include "simd/math.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// log u for 0 < u < 1 that is no denormal: log without the special cases.
VAEFAST_INLINE Vec<double> log_uniform(Vec<double> u) {
    const Vec<uint64_t> bits = (Vec<uint64_t>)u;
    const Vec<uint64_t> biased = (bits + (0x3FF0000000000000u - 0x3FE6A09E667F3BCDu)) >> 52;
    const Vec<double> k = (Vec<double>)(biased | 0x4330000000000000u) - (0x1p52 + 1023);
    return log_near_one((Vec<double>)(bits - ((biased - 1023) << 52)) - 1.0, k);
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
    const Vec<double> s = fma(a * z, polynomial<double>(sin_series, z), a);
    const Vec<double> c = fma(z * z, polynomial<double>(cos_series, z), 1.0 - 0.5 * z);
    const auto odd = (q & 1) != 0;
    *sine = (Vec<double>)((Vec<uint64_t>)(odd ? c : s) ^ (q & 2) << 62);
    *cosine = (Vec<double>)((Vec<uint64_t>)(odd ? s : c) ^ ((q + 1) & 2) << 62);
}

// Two vectors of normals from two of uniforms in (0, 1).
VAEFAST_INLINE void box_muller(Vec<double> u, Vec<double> v, double* first, double* second) {
    Vec<double> sine, cosine;
    sincos_turns(v, &sine, &cosine);
    const Vec<double> radius = sqrt(-2.0 * log_uniform(u));
    store<double>(first, radius * cosine);
    store<double>(second, radius * sine);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
