// One projected gradient step: pointers only, one row or row segment at a time.
#pragma once

#include <cmath>

#include "kernels.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
inline bool is_nan(T v) {
    return v != v;
}

// NaN where a parameter of the row is NaN, else 0: added to results, because a comparison with
// NaN is false and would drop it.
template <typename T>
inline T not_finite_parameters(T alpha, T eps, T low, T high) {
    return is_nan(alpha) || is_nan(eps) || is_nan(low) || is_nan(high) ? T(NAN) : T(0);
}

// v clipped to [low, high]; a NaN v stays, because min and max return their second operand then.
template <typename T>
VAEFAST_INLINE Vec<T> clip(Vec<T> v, Vec<T> low, Vec<T> high) {
    return min(high, max(low, v));
}

template <typename T>
void linf_segment(T* out, const T* x_adv, const T* grad, const T* x, int64_t n, T alpha, T eps,
                  T low, T high) {
    const Vec<T> zero = {}, ascend = zero + alpha, descend = zero - alpha,
                 parameters = zero + not_finite_parameters(alpha, eps, low, high),
                 lowest = zero + low, highest = zero + high;
    for_each_vector<T>(n, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        const Vec<T> g = load(grad + j, left), a = load(x_adv + j, left), c = load(x + j, left);
        const Vec<T> step = g > zero ? ascend : g < zero ? descend : zero;
        const Vec<T> moved = clip<T>(a + step, c - eps, c + eps);
        // NaN where an input is NaN or infinite, else 0
        const Vec<T> not_finite = zero * g + (zero * a + (zero * c + parameters));
        store<T>(out + j, clip<T>(moved, lowest, highest) + not_finite, left);
    });
}

template <typename T>
void pgd_step_linf(const PgdStep<T>& s, int64_t begin, int64_t end) {
    while (begin < end) {
        const int64_t i = begin / s.D, j = begin % s.D;
        const int64_t n = end - begin < s.D - j ? end - begin : s.D - j;
        linf_segment(s.out[i] + j, s.x_adv[i] + j, s.grad[i] + j, s.x[i] + j, n, s.alpha[i],
                     s.eps[i], s.low[i], s.high[i]);
        begin += n;
    }
}

// Σ v(j)² over blocks of 4096 elements in ascending order, the last vector padded with zeros.
// v(at) is the vector at one place of its arrays, each read as at(array).
template <typename T, typename Vector>
double sum_of_squares(int64_t n, Vector v) {
    constexpr int64_t vectors = 256 / VAEFAST_VECTOR_BYTES, block = 4096;
    double total = 0;
    for (int64_t start = 0; start < n; start += block) {
        const int64_t stop = n - start < block ? n : start + block;
        Vec<T> lanes[vectors] = {};
        int64_t j = start;
        for (; j + vectors * width<T> <= stop; j += vectors * width<T>)
#pragma GCC unroll 16
            for (int64_t k = 0; k < vectors; ++k) {
                const Vec<T> e =
                    v([=](const T* p) VAEFAST_FLAT { return load(p + j + k * width<T>); });
                lanes[k] += e * e;
            }
#pragma GCC unroll 16
        for (int64_t k = 0; k < vectors; ++k, j += width<T>) {
            if (j >= stop) break;
            const int64_t left = stop - j < width<T> ? stop - j : width<T>;
            const Vec<T> e = v([=](const T* p) VAEFAST_FLAT { return load(p + j, left); });
            lanes[k] += e * e;
        }
        total += sum_lanes<T>(lanes);
    }
    return total;
}

// Sums of squares in this range lost nothing to overflow or underflow.
inline bool is_safe(double sum, float) { return sum > 1e-24 && sum < 1e36; }
inline bool is_safe(double sum, double) { return sum > 1e-280 && sum < 1e300; }

// ‖v‖₂, NaN where an element is NaN or infinite.
template <typename T, typename Vector>
double norm2(int64_t n, Vector v) {
    const double total = sum_of_squares<T>(n, v);
    if (is_safe(total, T(0))) return __builtin_sqrt(total);
    T peak = 0;
    for (int64_t j = 0; j < n; ++j) {
        const T e = v([=](const T* p) { return p[j]; });
        if (!(e - e == 0)) return NAN;
        peak = e > peak ? e : -e > peak ? -e : peak;
    }
    if (peak == 0) return 0;
    const auto ratio = [=](auto at) VAEFAST_FLAT { return v(at) / peak; };
    return double(peak) * __builtin_sqrt(sum_of_squares<T>(n, ratio));
}

template <typename T>
void l2_row(T* out, const T* x_adv, const T* grad, const T* x, int64_t n, T alpha, T eps, T low,
            T high, double norm_eps) {
    const double length = norm2<T>(n, [=](auto at) VAEFAST_FLAT { return at(grad); });
    const T scale = T(alpha / (length < norm_eps ? norm_eps : length));
    const auto delta = [=](auto at) VAEFAST_FLAT { return (at(x_adv) + scale * at(grad)) - at(x); };
    const double distance = norm2<T>(n, delta);
    const T shrink = distance <= double(eps) ? T(1) : T(double(eps) / distance);
    const T parameters = not_finite_parameters(alpha, eps, low, high);
    const Vec<T> lowest = broadcast(low), highest = broadcast(high);
    for_each_vector<T>(n, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        const auto at = [=](const T* p) VAEFAST_FLAT { return load(p + j, left); };
        store<T>(out + j, clip<T>(at(x) + shrink * delta(at), lowest, highest) + parameters, left);
    });
}

template <typename T>
void pgd_step_l2(const PgdStep<T>& s, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
        l2_row(s.out[i], s.x_adv[i], s.grad[i], s.x[i], s.D, s.alpha[i], s.eps[i], s.low[i],
               s.high[i], s.norm_eps);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
