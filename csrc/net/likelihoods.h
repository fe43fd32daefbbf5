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

// u/2 − u²/24 + u⁴/2880 − ... and its derivative for u < ½, closed forms beyond.
template <typename T>
VAEFAST_INLINE Normaliser<T> continuous_normaliser(Vec<T> u) {
    constexpr double b[] = {1. / 12,          -1. / 720,
                            1. / 30240,       -1. / 1209600,
                            1. / 47900160,    -691. / 1307674368000,
                            1. / 74724249600, -3617. / 10670622842880000};
    constexpr int64_t terms = sizeof(T) == 8 ? 8 : 4;
    const Vec<T> zero = {}, y = u * u;
    Vec<T> log_series = zero, mean_series = zero;
#pragma GCC unroll 8
    for (int64_t k = terms; k > 0; --k) {
        log_series = fma(log_series, y, zero + T(b[k - 1] / double(2 * k)));
        mean_series = fma(mean_series, y, zero + T(b[k - 1]));
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

template <Likelihood likelihood, typename T>
VAEFAST_INLINE Pixel<T> pixel(Vec<T> out, Vec<T> x, T obs_std) {
    if constexpr (likelihood == Likelihood::gaussian) {
        const Vec<T> r = (x - out) / obs_std;
        return {T(-0.5) * r * r, (x - out) / (obs_std * obs_std)};
    } else if constexpr (likelihood == Likelihood::continuous_bernoulli) {
        return folded<T>(out, x, continuous_normaliser<T>);
    } else if constexpr (likelihood == Likelihood::clamped_bernoulli) {
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

// Σ log p over n <= block pixels, less the constant; where `score` is given, d log p / d out there.
template <Likelihood likelihood, typename T>
VAEFAST_INLINE double pixels(T obs_std, const T* out, const T* x, T* score, int64_t n) {
    T terms[block<T>] = {};
    for_each_vector<T>(n, [=, &terms](int64_t j, int64_t left) VAEFAST_FLAT {
        const Pixel<T> p = pixel<likelihood, T>(load(out + j, left), load(x + j, left), obs_std);
        store<T>(terms + j, p.log_density, left);
        if (score) store<T>(score + j, p.score, left);
    });
    return sum_block<T>(terms);
}

// run(tag) with tag.value the likelihood, known when compiling.
template <Likelihood likelihood>
struct Tag {
    static constexpr Likelihood value = likelihood;
};
template <typename Run>
VAEFAST_INLINE auto with_likelihood(Likelihood likelihood, Run run) {
    switch (likelihood) {
        case Likelihood::gaussian:
            return run(Tag<Likelihood::gaussian>{});
        case Likelihood::continuous_bernoulli:
            return run(Tag<Likelihood::continuous_bernoulli>{});
        case Likelihood::clamped_bernoulli:
            return run(Tag<Likelihood::clamped_bernoulli>{});
        default:
            return run(Tag<Likelihood::bernoulli>{});
    }
}

// score ← d log p / d out of n pixels
template <typename T>
void score(Likelihood likelihood, T obs_std, const T* out, const T* x, T* score, int64_t n) {
    with_likelihood(likelihood, [=](auto tag) {
        for_each_vector<T>(n, [=](int64_t j, int64_t left) VAEFAST_FLAT {
            const Vec<T> a = load(out + j, left), pixels = load(x + j, left);
            store<T>(score + j, pixel<decltype(tag)::value, T>(a, pixels, obs_std).score, left);
        });
    });
}

// Σ log p over n <= block pixels, less the constant
template <typename T>
double log_density(Likelihood likelihood, T obs_std, const T* out, const T* x, int64_t n) {
    return with_likelihood(likelihood, [=](auto tag) {
        return pixels<decltype(tag)::value, T>(obs_std, out, x, nullptr, n);
    });
}

// The part of log p per pixel that depends on neither out nor x.
inline double log_density_constant(Likelihood likelihood, double obs_std) {
    constexpr double half_log_two_pi = 0.91893853320467274178;
    return likelihood == Likelihood::gaussian ? -__builtin_log(obs_std) - half_log_two_pi : 0.0;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
