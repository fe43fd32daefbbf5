// The likelihoods p(x | out) per pixel: log-density and its derivative, as
// vaefast/reference/likelihoods.py derives them.
#pragma once

#include "kernels.h"
#include "simd/math.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Pixels that are summed together; sums of blocks are added in ascending order.
template <typename T>
constexpr int64_t block = 2 * width<T>;

constexpr double clamp_at = 11.512915464920228;  // log((1 − 1e-5) / 1e-5)

template <typename T>
struct Pixel {
    Vec<T> log_density, score;  // log_density less the constant
};

// A(u) and the mean at logit −u of the Bernoulli family, u >= 0.
template <typename T>
struct Normaliser {
    Vec<T> log, mean;
};

template <typename T>
VAEFAST_INLINE Normaliser<T> bernoulli_normaliser(Vec<T> u) {
    const Vec<T> decay = exp_of_minus<T>(u);
    return {log1p_unit<T>(decay), decay / (1 + decay)};
}

// B₂ₖ/(2k)!: the mean at logit −u is ½ − Σ b_k u²ᵏ⁻¹.
constexpr double MEAN_SERIES[] = {1. / 12,          -1. / 720,
                                  1. / 30240,       -1. / 1209600,
                                  1. / 47900160,    -691. / 1307674368000,
                                  1. / 74724249600, -3617. / 10670622842880000};

// u/2 − u²/24 + u⁴/2880 − ... and its derivative for u < ½, closed forms beyond.
template <typename T>
VAEFAST_INLINE Normaliser<T> continuous_normaliser(Vec<T> u) {
    constexpr int64_t terms = sizeof(T) == 8 ? 8 : 4;
    const Vec<T> zero = {}, y = u * u;
    Vec<T> log_series = zero, mean_series = zero;
#pragma GCC unroll 8
    for (int64_t k = terms; k > 0; --k) {
        log_series = fma(log_series, y, zero + T(MEAN_SERIES[k - 1] / double(2 * k)));
        mean_series = fma(mean_series, y, zero + T(MEAN_SERIES[k - 1]));
    }
    const Vec<T> decay = exp_of_minus<T>(u), rest = 1 - decay, half = zero + T(0.5);
    const auto near = u < half;
    return {near ? fma(y, log_series, -half * u) : -log<T>(u / rest),
            near ? fma(-u, mean_series, half) : 1 / u - decay / rest};
}

// Folded at 0: no two large numbers are subtracted.
template <typename T, typename Family>
VAEFAST_INLINE Pixel<T> folded(Vec<T> out, Vec<T> x, Family family) {
    const Vec<T> zero = {};
    const auto positive = out > zero;
    const Vec<T> u = positive ? out : -out, t = positive ? 1 - x : x;
    const Normaliser<T> a = family(u);
    const Vec<T> slope = a.mean - t;
    return {fma(-t, u, -a.log), positive ? slope : -slope};
}

// A likelihood, and whether each pixel has a std of its own, known when compiling.
template <Likelihood likelihood_, bool per_pixel_ = false>
struct Kind {
    static constexpr Likelihood likelihood = likelihood_;
    static constexpr bool per_pixel = per_pixel_;
};

// run(kind) with what is known of the likelihood and the Gaussian's std.
template <typename T, typename Run>
VAEFAST_INLINE auto with_kind(Likelihood likelihood, const Std<T>& std, Run run) {
    switch (likelihood) {
        case Likelihood::gaussian:
            if (std.per_pixel()) return run(Kind<Likelihood::gaussian, true>{});
            return run(Kind<Likelihood::gaussian>{});
        case Likelihood::continuous_bernoulli:
            return run(Kind<Likelihood::continuous_bernoulli>{});
        case Likelihood::clamped_bernoulli:
            return run(Kind<Likelihood::clamped_bernoulli>{});
        default:
            return run(Kind<Likelihood::bernoulli>{});
    }
}

// The std of neighbouring pixels, and its square.
template <typename T>
struct StdAt {
    Vec<T> std, variance;
};

// The stds of a row's pixels; one value for all is read and squared once.
template <typename Kind, typename T>
struct Stds {
    const T* data;
    StdAt<T> whole;

    VAEFAST_INLINE explicit Stds(const T* data) : data(data), whole{} {
        if constexpr (Kind::likelihood == Likelihood::gaussian && !Kind::per_pixel)
            whole = {broadcast(*data), broadcast(*data * *data)};
    }
    VAEFAST_INLINE StdAt<T> operator()(int64_t j, int64_t left) const {
        if constexpr (!Kind::per_pixel) return whole;
        const Vec<T> std = load(data + j, left);
        return {std, std * std};
    }
    VAEFAST_INLINE Stds from(int64_t j) const {
        Stds rest = *this;
        if (Kind::per_pixel) rest.data += j;
        return rest;
    }
};

template <typename Kind, typename T>
VAEFAST_INLINE Pixel<T> pixel(Vec<T> out, Vec<T> x, const StdAt<T>& at) {
    if constexpr (Kind::likelihood == Likelihood::gaussian) {
        const Vec<T> r = (x - out) / at.std;
        return {T(-0.5) * r * r, (x - out) / at.variance};
    } else if constexpr (Kind::likelihood == Likelihood::continuous_bernoulli) {
        return folded<T>(out, x, continuous_normaliser<T>);
    } else if constexpr (Kind::likelihood == Likelihood::clamped_bernoulli) {
        const Vec<T> zero = {}, limit = zero + T(clamp_at);
        const Pixel<T> p = folded<T>(min(limit, max(-limit, out)), x, bernoulli_normaliser<T>);
        const auto clamped = (out > limit) | (out < -limit);
        return {p.log_density, p.score * (clamped ? zero : zero + 1)};
    } else {
        return folded<T>(out, x, bernoulli_normaliser<T>);
    }
}

// Σ in double over the lanes, by halves.
template <typename T>
VAEFAST_INLINE double sum_block(const T (&terms)[block<T>]) {
    double lanes[block<T>];
    for (int64_t l = 0; l < block<T>; ++l) lanes[l] = terms[l];
    for (int64_t half = block<T> / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

// Σ log of n <= block stds, in double.
template <typename T>
double sum_of_logs(const T* std, int64_t n) {
    double lanes[block<T>];
    for (int64_t l = 0; l < block<T>; ++l) lanes[l] = l < n ? double(std[l]) : 1;
    for (int64_t l = 0; l < block<T>; l += width<double>)
        store<double>(lanes + l, log<double>(load(lanes + l)));
    for (int64_t half = block<T> / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

// Σ log p over n <= block pixels, less the constant; where `score` is given, d log p / d out there.
template <typename Kind, typename T>
VAEFAST_INLINE double pixels(Stds<Kind, T> stds, const T* out, const T* x, T* score, int64_t n) {
    T terms[block<T>] = {};
    for_each_vector<T>(n, [=, &terms](int64_t j, int64_t left) VAEFAST_FLAT {
        const Pixel<T> p = pixel<Kind, T>(load(out + j, left), load(x + j, left), stds(j, left));
        store<T>(terms + j, p.log_density, left);
        if (score) store<T>(score + j, p.score, left);
    });
    if constexpr (Kind::per_pixel)
        return sum_block<T>(terms) - sum_of_logs(stds.data, n);
    else
        return sum_block<T>(terms);
}

// score ← d log p / d out of `count` pixels from number `first` of image b
template <typename Kind, typename T>
void score(const Std<T>& std, int64_t b, int64_t first, const T* out, const T* x, T* score,
           int64_t count) {
    const Stds<Kind, T> stds(std.at(b, first));
    for_each_vector<T>(count, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        const Vec<T> a = load(out + j, left), pixels = load(x + j, left);
        store<T>(score + j, pixel<Kind, T>(a, pixels, stds(j, left)).score, left);
    });
}

// Σ log p over n <= block pixels from number `first` of image b, less the constant
template <typename Kind, typename T>
double log_density(const Std<T>& std, int64_t b, int64_t first, const T* out, const T* x,
                   int64_t n) {
    return pixels<Kind, T>(Stds<Kind, T>(std.at(b, first)), out, x, nullptr, n);
}

// The part of log p per pixel of image b that depends on neither out nor x. Where each pixel has a
// std of its own, its logarithm is counted with the pixel.
template <typename T>
double log_density_constant(Likelihood likelihood, const Std<T>& std, int64_t b) {
    constexpr double half_log_two_pi = 0.91893853320467274178;
    if (likelihood != Likelihood::gaussian) return 0;
    return (std.per_pixel() ? 0 : -__builtin_log(double(*std.at(b)))) - half_log_two_pi;
}

// Whether every std of image b, of D pixels, is positive and finite.
template <typename T>
bool valid_std(Likelihood likelihood, const Std<T>& std, int64_t b, int64_t D) {
    if (likelihood != Likelihood::gaussian) return true;
    const T* values = std.at(b);
    bool valid = true;
    for (int64_t j = 0; j < (std.per_pixel() ? D : 1); ++j)
        valid = valid & (values[j] > 0) & (values[j] < T(INFINITY));
    return valid;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
