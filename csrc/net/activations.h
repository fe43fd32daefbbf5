// The activations of a network. Slopes come from the pre-activation: 1 − h² or h(1 − h) would
// cancel.
#pragma once

#include "kernels.h"
#include "simd/math.h"
#include "simd/normal.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
VAEFAST_INLINE Slope<T> relu_slope(Vec<T> a) {
    const Vec<T> zero = {};
    return {max(zero, a), a > zero ? zero + T(1) : zero};
}

template <typename T>
VAEFAST_INLINE Slope<T> leaky_relu_slope(Vec<T> a, Vec<T> slope) {
    const Vec<T> zero = {};
    return {a > zero ? a : slope * a, a > zero ? zero + T(1) : slope};
}

template <typename T>
VAEFAST_INLINE Slope<T> elu_slope(Vec<T> a, Vec<T> alpha) {
    const Vec<T> zero = {}, below = min(zero, a);
    return {a > zero ? a : alpha * expm1<T>(below), a > zero ? zero + T(1) : alpha * exp<T>(below)};
}

template <typename T>
VAEFAST_INLINE Slope<T> silu_slope(Vec<T> a) {
    const Vec<T> zero = {}, size = exp_of_minus<T>(absolute<T>(a));
    const Vec<T> larger = reciprocal_above_one<T>(size), smaller = size * larger;
    const Vec<T> s = a < zero ? smaller : larger, other = a < zero ? larger : smaller;
    return {a * s, s * fma(a, other, broadcast(T(1)))};
}

template <typename T>
VAEFAST_INLINE Slope<T> gelu_slope(Vec<T> a) {
    const NormalAt<T> at = normal<T>(a);
    return {a * at.cdf, fma(a, at.density, at.cdf)};
}

// a·σ(u), u = 2·√(2/π)·(a + k·a³)
template <typename T>
VAEFAST_INLINE Slope<T> gelu_tanh_slope(Vec<T> a) {
    constexpr T c = T(1.59576912160573071), k = T(0.044715);
    const Vec<T> one = broadcast(T(1)), end = broadcast(T(64));  // σ(u) is 0 or 1 beyond
    const Vec<T> inside = min(end, max(-end, a)), square = inside * inside;
    const Slope<T> s = sigmoid_slope<T>(c * inside * fma(square, broadcast(k), one));
    const Vec<T> du = c * fma(square, broadcast(3 * k), one);
    return {a * s.value, fma(inside * du, s.slope, s.value)};
}

template <typename T>
VAEFAST_INLINE Slope<T> exp_half_slope(Vec<T> a) {
    const Vec<T> h = exp<T>(T(0.5) * a);
    return {h, T(0.5) * h};
}

// The larger of each adjacent pair first; the slope is 1 where the pair kept its order, else 0.
template <typename T>
VAEFAST_INLINE Slope<T> maxmin_slope(Vec<T> a) {
    const Vec<T> zero = {}, one = zero + T(1), other = swap_pairs(a);
    Bits<T> first = {};
    for (int64_t l = 0; l < width<T>; l += 2) first[l] = -1;
    const Vec<T> ordered = (Vec<T>)((Bits<T>)(a >= other ? one : zero) & first);
    const Vec<T> slope = ordered + swap_pairs(ordered);
    return {slope > zero ? a : other, slope};
}

// Slope 1 at both ends too, and 0 for NaN, as torch.clamp's derivative.
template <typename T>
VAEFAST_INLINE Slope<T> clamp_slope(Vec<T> a, Vec<T> low, Vec<T> high) {
    const Vec<T> zero = {};
    return {min(high, max(low, a)), (a >= low) & (a <= high) ? zero + T(1) : zero};
}

// a·min(max(a + 3, 0), 6)/6
template <typename T>
VAEFAST_INLINE Slope<T> hardswish_slope(Vec<T> a) {
    const Vec<T> zero = {}, one = zero + T(1), three = broadcast(T(3));
    const Vec<T> gate = min(broadcast(T(6)), max(zero, a + three)) * T(1. / 6);
    const Vec<T> inside = (a + a + three) * T(1. / 6);
    return {a * gate, a >= three ? one : a <= -three ? zero : inside};
}

// t = tanh(softplus a) and dt/da.
template <typename T>
struct MishGate {
    Vec<T> value, rate;
};

// t = n/(n + 2), n = e²ᵃ + 2eᵃ, both scaled by e⁻²ᵃ where a ≥ 0; t' = 4eᵃ(1 + eᵃ)/(n + 2)².
template <typename T>
VAEFAST_INLINE MishGate<T> mish_gate(Vec<T> a) {
    const Vec<T> zero = {}, one = zero + T(1), u = exp_of_minus<T>(absolute<T>(a));
    const auto below = a < zero;
    const Vec<T> n = below ? u * (u + T(2)) : fma(u, broadcast(T(2)), one);
    const Vec<T> r = one / (n + (below ? zero + T(2) : T(2) * u * u));
    return {n * r, T(4) * (below ? u : u * u) * (one + u) * r * r};
}

// a·t
template <typename T>
VAEFAST_INLINE Slope<T> mish_slope(Vec<T> a) {
    const MishGate<T> gate = mish_gate<T>(a);
    return {a * gate.value, fma(a, gate.rate, gate.value)};
}

template <typename T>
VAEFAST_INLINE Slope<T> selu_slope(Vec<T> a) {
    constexpr T scale = T(1.0507009873554804934), below_scale = T(1.7580993408473768);
    const Vec<T> zero = {}, below = min(zero, a);
    return {a > zero ? scale * a : below_scale * expm1<T>(below),
            a > zero ? zero + scale : below_scale * exp<T>(below)};
}

// h ← value and slope ← slope of f(vector), for `count` elements, a multiple of width<T>.
template <typename T, typename Function>
VAEFAST_INLINE void apply(const T* a, T* h, T* slope, int64_t count, Function f) {
    if (!slope) {
        for (int64_t j = 0; j < count; j += width<T>) store<T>(h + j, f(load(a + j)).value);
        return;
    }
    for (int64_t j = 0; j < count; j += width<T>) {
        const Slope<T> result = f(load(a + j));
        store<T>(h + j, result.value);
        store<T>(slope + j, result.slope);
    }
}

// h ← φ(a) and, where `slope` is not null, slope ← φ'(a): `count` elements, a multiple of
// width<T>; h may be a.
template <typename T>
void activate(Activation kind, Parameters<T> parameters, const T* a, T* h, T* slope,
              int64_t count) {
    const Vec<T> p = broadcast(parameters.first), q = broadcast(parameters.second),
                 one = broadcast(T(1));
    const auto run = [=](auto f) VAEFAST_FLAT { apply<T>(a, h, slope, count, f); };
    switch (kind) {
        case Activation::identity:
            return run([=](Vec<T> v) VAEFAST_FLAT { return Slope<T>{v, one}; });
        case Activation::relu:
            return run([](Vec<T> v) VAEFAST_FLAT { return relu_slope<T>(v); });
        case Activation::leaky_relu:
            return run([=](Vec<T> v) VAEFAST_FLAT { return leaky_relu_slope<T>(v, p); });
        case Activation::elu:
            return run([=](Vec<T> v) VAEFAST_FLAT { return elu_slope<T>(v, p); });
        case Activation::tanh:
            return run([](Vec<T> v) VAEFAST_FLAT { return tanh_slope<T>(v); });
        case Activation::sigmoid:
            return run([](Vec<T> v) VAEFAST_FLAT { return sigmoid_slope<T>(v); });
        case Activation::softplus:
            return run([](Vec<T> v) VAEFAST_FLAT { return softplus_slope<T>(v); });
        case Activation::silu:
            return run([](Vec<T> v) VAEFAST_FLAT { return silu_slope<T>(v); });
        case Activation::gelu:
            return run([](Vec<T> v) VAEFAST_FLAT { return gelu_slope<T>(v); });
        case Activation::gelu_tanh:
            return run([](Vec<T> v) VAEFAST_FLAT { return gelu_tanh_slope<T>(v); });
        case Activation::exp_half:
            return run([](Vec<T> v) VAEFAST_FLAT { return exp_half_slope<T>(v); });
        case Activation::maxmin:
            return run([](Vec<T> v) VAEFAST_FLAT { return maxmin_slope<T>(v); });
        case Activation::clamp:
            return run([=](Vec<T> v) VAEFAST_FLAT { return clamp_slope<T>(v, p, q); });
        case Activation::hardswish:
            return run([](Vec<T> v) VAEFAST_FLAT { return hardswish_slope<T>(v); });
        case Activation::mish:
            return run([](Vec<T> v) VAEFAST_FLAT { return mish_slope<T>(v); });
        case Activation::selu:
            return run([](Vec<T> v) VAEFAST_FLAT { return selu_slope<T>(v); });
    }
}

// to ← φ'·t from what `activate` stored, for `count` elements, a multiple of width<T>; to may be t.
template <typename T>
void multiply_slope(Activation kind, const T* slope, const T* t, T* to, int64_t count) {
    if (kind == Activation::identity) {
        if (to != t) std::memcpy(to, t, count * sizeof(T));
        return;
    }
    const bool swaps = kind == Activation::maxmin;
    for (int64_t j = 0; j < count; j += width<T>) {
        const Vec<T> s = load(slope + j), v = load(t + j), zero = {};
        store<T>(to + j, swaps ? (s > zero ? v : swap_pairs(v)) : s * v);
    }
}

template <typename T>
void multiply_slope(Activation kind, const T* slope, T* t, int64_t count) {
    multiply_slope<T>(kind, slope, t, t, count);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
