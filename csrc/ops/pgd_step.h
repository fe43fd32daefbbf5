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

// v clipped to [low, high]; a NaN v stays, because min and max return their second operand then.
template <typename T>
VAEFAST_INLINE Vec<T> clip(Vec<T> v, Vec<T> low, Vec<T> high) {
    return min(high, max(low, v));
}
template <typename T>
VAEFAST_INLINE T clip(T v, T low, T high) {
    const T raised = low > v ? low : v;
    return high < raised ? high : raised;
}

// A row's parameters.
template <typename T>
struct StepOfRow {
    OfRow<T> alpha, eps, low, high;

    // Of row i, from column j on.
    StepOfRow(const PgdStep<T>& s, int64_t i, int64_t j = 0)
        : alpha(s.alpha.of_row(i, j)),
          eps(s.eps.of_row(i, j)),
          low(s.low.of_row(i, j)),
          high(s.high.of_row(i, j)) {}

    // Whether a value for the whole row is NaN.
    bool has_nan() const {
        return is_nan(alpha.value) || is_nan(eps.value) || is_nan(low.value) || is_nan(high.value);
    }
};

// Parameters of neighbouring elements. `not_finite` is NaN where one of them is NaN, else 0: it is
// added to results, because a comparison with NaN is false and would drop it.
template <typename T>
struct StepOfElements {
    Vec<T> alpha, eps, low, high, not_finite;

    explicit StepOfElements(const StepOfRow<T>& row)
        : alpha(broadcast(row.alpha.value)),
          eps(broadcast(row.eps.value)),
          low(broadcast(row.low.value)),
          high(broadcast(row.high.value)),
          not_finite(broadcast(row.has_nan() ? T(NAN) : T(0))) {}

    VAEFAST_INLINE StepOfElements at(const StepOfRow<T>& row, int64_t j, int64_t left) const {
        StepOfElements own = *this;
        if (row.alpha.columns) own.alpha = load(row.alpha.columns + j, left);
        if (row.eps.columns) own.eps = load(row.eps.columns + j, left);
        if (row.low.columns) own.low = load(row.low.columns + j, left);
        if (row.high.columns) own.high = load(row.high.columns + j, left);
        const auto nan = (own.alpha != own.alpha) | (own.eps != own.eps) | (own.low != own.low) |
                         (own.high != own.high);
        own.not_finite = nan ? broadcast(T(NAN)) : not_finite;
        return own;
    }
};

// y; or its neighbour towards x, where |y - x|, without any rounding, exceeds eps.
template <typename T>
VAEFAST_INLINE Vec<T> inside(Vec<T> y, Vec<T> x, Vec<T> eps) {
    const Vec<T> delta = y - x, shift = delta - y;
    const Vec<T> error = (y - (delta - shift)) - (x + shift);  // y - x = delta + error (Knuth)
    const Bits<T> sign = (Bits<T>)broadcast(T(-0.0)) & (Bits<T>)delta;
    const Vec<T> length = (Vec<T>)((Bits<T>)delta ^ sign), more = (Vec<T>)((Bits<T>)error ^ sign);
    const Bits<T> outside = (length - eps) + more > Vec<T>{};         // -1 or 0 in every lane
    const Bits<T> grows = ((Bits<T>)y ^ (Bits<T>)delta) < Bits<T>{};  // towards x, |y| does
    return (Vec<T>)((Bits<T>)y + ((outside ^ grows) - grows));
}

template <bool per_element, bool clip_first, typename T>
void linf_segment(T* out, const T* x_adv, const T* grad, const T* x, int64_t n, StepOfRow<T> row) {
    const Vec<T> zero = {};
    const StepOfElements<T> whole(row);
    const Vec<T> descent = zero - whole.alpha;
    for_each_vector<T>(n, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        StepOfElements<T> p = whole;
        Vec<T> descend = descent;
        if constexpr (per_element) p = whole.at(row, j, left), descend = zero - p.alpha;
        const Vec<T> g = load(grad + j, left), a = load(x_adv + j, left), c = load(x + j, left);
        const Vec<T> step = g > zero ? p.alpha : g < zero ? descend : zero;
        Vec<T> moved = a + step;
        if constexpr (clip_first) moved = clip<T>(moved, p.low, p.high);
        moved = inside<T>(clip<T>(moved, c - p.eps, c + p.eps), c, p.eps);
        if constexpr (!clip_first) moved = clip<T>(moved, p.low, p.high);
        // NaN where an input is NaN or infinite, else 0
        const Vec<T> not_finite = zero * g + (zero * a + (zero * c + p.not_finite));
        store<T>(out + j, moved + not_finite, left);
    });
}

// run(per_element, clip_first), both known when compiling: what is not asked for costs nothing.
template <bool value_>
struct Choice {
    static constexpr bool value = value_;
};
template <typename T, typename Run>
VAEFAST_INLINE void with_choices(const PgdStep<T>& s, Run run) {
    const bool per_element = s.per_element();
    if (per_element && s.clip_first) return run(Choice<true>{}, Choice<true>{});
    if (per_element) return run(Choice<true>{}, Choice<false>{});
    if (s.clip_first) return run(Choice<false>{}, Choice<true>{});
    run(Choice<false>{}, Choice<false>{});
}

template <typename T>
void pgd_step_linf(const PgdStep<T>& s, int64_t begin, int64_t end) {
    with_choices(s, [=, &s](auto per_element, auto clip_first) {
        for (int64_t at = begin, n; at < end; at += n) {
            const int64_t i = at / s.D, j = at % s.D;
            n = end - at < s.D - j ? end - at : s.D - j;
            linf_segment<decltype(per_element)::value, decltype(clip_first)::value>(
                s.out[i] + j, s.x_adv[i] + j, s.grad[i] + j, s.x[i] + j, n, StepOfRow<T>(s, i, j));
        }
    });
}

// v with zeros from lane n on.
template <typename T>
VAEFAST_INLINE Vec<T> first_lanes(Vec<T> v, int64_t n) {
    T lanes[width<T>];
    std::memcpy(lanes, &v, sizeof v);
    return load(lanes, n);
}

// Σ v(j)² over blocks of 4096 elements in ascending order, the last vector padded with zeros.
// v(at) is the vector at one place of its arrays, each read as at(array); `pads` says that it is
// not zero where all of these are.
template <typename T, bool pads, typename Vector>
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
            Vec<T> e = v([=](const T* p) VAEFAST_FLAT { return load(p + j, left); });
            if constexpr (pads) e = first_lanes<T>(e, left);
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
template <typename T, bool pads = false, typename Vector>
double norm2(int64_t n, Vector v) {
    const double total = sum_of_squares<T, pads>(n, v);
    if (is_safe(total, T(0))) return __builtin_sqrt(total);
    T peak = 0;
    for (int64_t j = 0; j < n; ++j) {
        const T e = v([=](const T* p) { return p[j]; });
        if (!(e - e == 0)) return NAN;
        peak = e > peak ? e : -e > peak ? -e : peak;
    }
    if (peak == 0) return 0;
    const auto ratio = [=](auto at) VAEFAST_FLAT { return v(at) / peak; };
    return double(peak) * __builtin_sqrt(sum_of_squares<T, pads>(n, ratio));
}

// What gradients of this length are multiplied with first, so that alpha / length is normal.
inline double lift(double length, float) {
    return length < 0x1p-60 ? 0x1p64 : length > 0x1p60 ? 0x1p-64 : 1;
}
inline double lift(double length, double) {
    return length < 0x1p-500 ? 0x1p512 : length > 0x1p500 ? 0x1p-512 : 1;
}

// Whether a bound of some column is NaN.
template <typename T>
bool has_nan(const OfRow<T>& bound, int64_t n) {
    bool nan = false;
    for (int64_t j = 0; bound.columns && j < n; ++j) nan = nan | is_nan(bound.columns[j]);
    return nan;
}

template <bool per_element, bool clip_first, typename T>
void l2_row(T* out, const T* x_adv, const T* grad, const T* x, int64_t n, StepOfRow<T> row,
            double norm_eps) {
    const T alpha = row.alpha.value, eps = row.eps.value;
    // the bound at one place, as `at` reads its columns
    const auto bound = [=](const OfRow<T>& of, auto at) VAEFAST_FLAT {
        using V = decltype(at(x));
        if constexpr (per_element)
            if (of.columns) return V(at(of.columns));
        return V{} + of.value;
    };
    const auto boxed = [=](auto v, auto at) VAEFAST_FLAT {
        return clip<T>(v, bound(row.low, at), bound(row.high, at));
    };
    const double length = norm2<T>(n, [=](auto at) VAEFAST_FLAT { return at(grad); });
    const double divisor = length < norm_eps ? norm_eps : length, power = lift(divisor, T(0));
    const T lifted = T(power), scale = T(alpha / (divisor * power));
    const auto delta = [=](auto at) VAEFAST_FLAT {
        const auto moved = at(x_adv) + scale * (lifted * at(grad));
        if constexpr (clip_first)  // infinity, which would become finite, makes the norm NaN
            return boxed(moved, at) + T(0) * moved - at(x);
        else
            return moved - at(x);
    };
    const double distance = norm2<T, clip_first>(n, delta);
    const T shrink = distance <= double(eps) ? T(1) : T(double(eps) / distance);
    bool nan = row.has_nan();
    if constexpr (per_element) nan = nan || has_nan(row.low, n) || has_nan(row.high, n);
    const T not_finite = nan ? T(NAN) : T(0);
    for_each_vector<T>(n, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        const auto at = [=](const T* p) VAEFAST_FLAT { return load(p + j, left); };
        Vec<T> moved = at(x) + shrink * delta(at);
        if constexpr (!clip_first) moved = boxed(moved, at);
        store<T>(out + j, moved + not_finite, left);
    });
}

template <typename T>
void pgd_step_l2(const PgdStep<T>& s, int64_t begin, int64_t end) {
    with_choices(s, [=, &s](auto per_element, auto clip_first) {
        for (int64_t i = begin; i < end; ++i)
            l2_row<decltype(per_element)::value, decltype(clip_first)::value>(
                s.out[i], s.x_adv[i], s.grad[i], s.x[i], s.D, StepOfRow<T>(s, i), s.norm_eps);
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
