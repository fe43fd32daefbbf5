// Slopes that a caller keeps from one op for another: numbers, or a byte each of an activation that
// has two slopes, so that less has to leave the caches.
#pragma once

#include "net/activations.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Where slopes of a row lie; null: they are not kept.
template <typename T>
struct SlopesAt {
    T* numbers;
    int8_t* bytes;  // 1 where the slope is one, 0 where it is the activation's other
};

constexpr bool has_two_slopes(Activation kind) {
    return kind == Activation::relu || kind == Activation::leaky_relu ||
           kind == Activation::clamp || kind == Activation::maxmin;
}

// A vector's worth of bytes.
template <typename T>
struct BytesOf;
template <>
struct BytesOf<float> {
    typedef int8_t type __attribute__((vector_size(VAEFAST_VECTOR_BYTES / 4)));
};
template <>
struct BytesOf<double> {
    typedef int8_t type __attribute__((vector_size(VAEFAST_VECTOR_BYTES / 8)));
};
template <typename T>
using Bytes = typename BytesOf<T>::type;

// h ← φ(a) and bytes ← which slope, for `count` elements, a multiple of width<T>; h may be a.
template <typename T>
void activate_two(Activation kind, Parameters<T> parameters, const T* a, T* h, int8_t* bytes,
                  int64_t count) {
    constexpr int64_t strip = 16 * width<T>;  // stays in L1
    const Vec<T> one = broadcast(T(1));
    T slopes[strip];
    for (int64_t j = 0; j < count; j += strip) {
        const int64_t n = count - j < strip ? count - j : strip;
        activate(kind, parameters, a + j, h + j, slopes, n);
        for (int64_t i = 0; i < n; i += width<T>) {
            const auto is_one = (Bits<T>)(load(slopes + i) == one);
            const Bytes<T> narrow = __builtin_convertvector(is_one, Bytes<T>) & 1;
            std::memcpy(bytes + j + i, &narrow, sizeof narrow);
        }
    }
}

// multiply_slope by slopes that bytes tell.
template <typename T>
void multiply_two_slopes(Activation kind, Parameters<T> parameters, const int8_t* bytes, const T* t,
                         T* to, int64_t count) {
    const bool swaps = kind == Activation::maxmin;
    const Vec<T> one = broadcast(T(1)),
                 other = broadcast(kind == Activation::leaky_relu ? parameters.first : T(0));
    for (int64_t j = 0; j < count; j += width<T>) {
        Bytes<T> narrow;
        std::memcpy(&narrow, bytes + j, sizeof narrow);
        const auto is_one = __builtin_convertvector(narrow, Bits<T>) != 0;
        const Vec<T> v = load(t + j);
        if (swaps)
            store<T>(to + j, is_one ? v : swap_pairs(v));
        else
            store<T>(to + j, (is_one ? one : other) * v);
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
