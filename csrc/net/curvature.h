// Second derivatives, element by element: of the activations, and of log p per pixel.
#pragma once

#include "net/activations.h"
#include "net/likelihoods.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Whether φ'' is not 0 everywhere; kinks do not count.
constexpr bool is_curved(Activation kind) {
    switch (kind) {
        case Activation::identity:
        case Activation::relu:
        case Activation::leaky_relu:
        case Activation::maxmin:
        case Activation::clamp:
            return false;
        default:
            return true;
    }
}

template <typename T>
VAEFAST_INLINE Vec<T> silu_second(Vec<T> a) {
    const Slope<T> s = sigmoid_slope<T>(a);
    return s.slope * fma(a, 1 - (s.value + s.value), broadcast(T(2)));
}

template <typename T>
VAEFAST_INLINE Vec<T> gelu_second(Vec<T> a) {
    const Vec<T> end = broadcast(T(64)),
                 inside = min(end, max(-end, a));  // the density is 0 beyond
    return normal<T>(a).density * fma(-inside, inside, broadcast(T(2)));
}

// a·σ(u) as gelu_tanh_slope has it: σ'·(2u' + a·(u'' + (1 − 2σ)·u'²))
template <typename T>
VAEFAST_INLINE Vec<T> gelu_tanh_second(Vec<T> a) {
    constexpr T c = T(1.59576912160573071), k = T(0.044715);
    const Vec<T> one = broadcast(T(1)), end = broadcast(T(64));
    const Vec<T> inside = min(end, max(-end, a)), square = inside * inside;
    const Slope<T> s = sigmoid_slope<T>(c * inside * fma(square, broadcast(k), one));
    const Vec<T> du = c * fma(square, broadcast(3 * k), one);
    const Vec<T> curve = fma((1 - (s.value + s.value)) * du, du, (6 * c * k) * inside);
    return s.slope * fma(inside, curve, du + du);
}

// With t and its derivative of mish_slope: t'·(2 + a·(σ(−a) − 2t·σ(a)))
template <typename T>
VAEFAST_INLINE Vec<T> mish_second(Vec<T> a) {
    const MishGate<T> gate = mish_gate<T>(a);
    const Vec<T> s = sigmoid<T>(a), other = sigmoid<T>(-a);
    return gate.rate * fma(a, fma(T(-2) * gate.value, s, other), broadcast(T(2)));
}

// f(a, h, slope) into `to` for `count` elements, a multiple of width<T>.
template <typename T, typename Function>
VAEFAST_INLINE void for_each_second(const T* a, const T* h, const T* slope, T* to, int64_t count,
                                    Function f) {
    for (int64_t j = 0; j < count; j += width<T>)
        store<T>(to + j, f(load(a + j), load(h + j), load(slope + j)));
}

// to ← φ''(a) from a and what `activate` made of it, for `count` elements, a multiple of width<T>.
template <typename T>
void second_derivative(Activation kind, const T* a, const T* h, const T* slope, T* to,
                       int64_t count) {
    const Vec<T> zero = {}, third = broadcast(T(1. / 3)), three = broadcast(T(3));
    const auto run = [=](auto f) VAEFAST_FLAT { for_each_second<T>(a, h, slope, to, count, f); };
    switch (kind) {
        case Activation::elu:
        case Activation::selu:
            return run([=](Vec<T> v, Vec<T>, Vec<T> s)
                           VAEFAST_FLAT { return v > zero ? zero : s; });
        case Activation::tanh:
            return run([](Vec<T>, Vec<T> y, Vec<T> s) VAEFAST_FLAT { return T(-2) * y * s; });
        case Activation::sigmoid:
            return run([](Vec<T>, Vec<T> y, Vec<T> s) VAEFAST_FLAT { return s * (1 - (y + y)); });
        case Activation::softplus:
            return run([](Vec<T> v, Vec<T>, Vec<T>)
                           VAEFAST_FLAT { return sigmoid_slope<T>(v).slope; });
        case Activation::silu:
            return run([](Vec<T> v, Vec<T>, Vec<T>) VAEFAST_FLAT { return silu_second<T>(v); });
        case Activation::gelu:
            return run([](Vec<T> v, Vec<T>, Vec<T>) VAEFAST_FLAT { return gelu_second<T>(v); });
        case Activation::gelu_tanh:
            return run([](Vec<T> v, Vec<T>, Vec<T>)
                           VAEFAST_FLAT { return gelu_tanh_second<T>(v); });
        case Activation::exp_half:
            return run([](Vec<T>, Vec<T> y, Vec<T>) VAEFAST_FLAT { return T(0.25) * y; });
        case Activation::hardswish:
            return run([=](Vec<T> v, Vec<T>, Vec<T>)
                           VAEFAST_FLAT { return absolute<T>(v) < three ? third : zero; });
        case Activation::mish:
            return run([](Vec<T> v, Vec<T>, Vec<T>) VAEFAST_FLAT { return mish_second<T>(v); });
        default:
            return run([=](Vec<T>, Vec<T>, Vec<T>) VAEFAST_FLAT { return zero; });
    }
}

// d² log p / d out², and d² log p / (d out dx).
template <typename T>
struct PixelSecond {
    Vec<T> curvature, mixed;
};

// −d/du of the mean 1/u − 1/(eᵘ − 1): near 0 its series, of which 8 terms reach further than the
// mean's own, as the closed form cancels sooner.
template <typename T>
VAEFAST_INLINE Vec<T> mean_slope(Vec<T> u) {
    constexpr double limit = sizeof(T) == 8 ? 0.5 : 1.5;
    const Vec<T> zero = {}, y = u * u;
    Vec<T> series = zero;
#pragma GCC unroll 8
    for (int64_t k = 8; k > 0; --k)
        series = fma(series, y, zero - T(double(2 * k - 1) * MEAN_SERIES[k - 1]));
    const Vec<T> decay = exp_of_minus<T>(u), rest = 1 - decay, inverse = 1 / u;
    return u < zero + T(limit) ? series : fma(-inverse, inverse, decay / (rest * rest));
}

template <typename Kind, typename T>
VAEFAST_INLINE PixelSecond<T> pixel_second(Vec<T> out, const StdAt<T>& at) {
    const Vec<T> zero = {}, one = zero + T(1), limit = zero + T(clamp_at);
    if constexpr (Kind::likelihood == Likelihood::gaussian) {
        const Vec<T> precision = one / at.variance;
        return {-precision, precision};
    } else if constexpr (Kind::likelihood == Likelihood::continuous_bernoulli) {
        return {mean_slope<T>(absolute<T>(out)), one};
    } else if constexpr (Kind::likelihood == Likelihood::clamped_bernoulli) {
        const auto clamped = (out > limit) | (out < -limit);
        const Vec<T> curvature = -sigmoid_slope<T>(out).slope;
        return {clamped ? zero : curvature, clamped ? zero : one};
    } else {
        return {-sigmoid_slope<T>(out).slope, one};
    }
}

// Tangents of `count` outputs from number `first` of image b become cotangents of these outputs;
// into_x gets `scale` times those of the pixels.
template <typename Kind, typename T>
void pull_pixel_tangents(const Std<T>& std, int64_t b, int64_t first, const T* out, T* moved,
                         T* into_x, T scale, int64_t count) {
    const Stds<Kind, T> stds(std.at(b, first));
    const Vec<T> times = broadcast(scale);
    for_each_vector<T>(count, [=](int64_t j, int64_t left) VAEFAST_FLAT {
        const PixelSecond<T> second = pixel_second<Kind, T>(load(out + j, left), stds(j, left));
        const Vec<T> v = load(moved + j, left);
        store<T>(into_x + j, fma(times * second.mixed, v, load(into_x + j, left)), left);
        store<T>(moved + j, second.curvature * v, left);
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
