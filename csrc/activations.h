// The activations of an MLP. Slopes come from the pre-activation: 1 − h² or h(1 − h) would cancel.
#pragma once

#include "kernels.h"
#include "math.h"
#include "normal.h"

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
void activate(Activation kind, T parameter, const T* a, T* h, T* slope, int64_t count) {
    const Vec<T> p = broadcast(parameter), one = broadcast(T(1));
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
