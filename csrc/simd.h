// Portable vectors of the level's own width, through the compiler's vector extension.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VAEFAST_VECTOR_BYTES 64
#elif defined(__AVX__)
#define VAEFAST_VECTOR_BYTES 32
#else
#define VAEFAST_VECTOR_BYTES 16
#endif

#define VAEFAST_INLINE inline __attribute__((always_inline))
#define VAEFAST_FLAT __attribute__((always_inline))  // for lambdas

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
struct VecOf {
    typedef T type __attribute__((vector_size(VAEFAST_VECTOR_BYTES)));
};
template <typename T>
using Vec = typename VecOf<T>::type;

template <typename T>
constexpr int64_t width = VAEFAST_VECTOR_BYTES / sizeof(T);

template <typename T>
VAEFAST_INLINE Vec<T> broadcast(T value) {
    return Vec<T>{} + value;
}

template <typename T>
VAEFAST_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// The first n elements, the rest zero.
template <typename T>
VAEFAST_INLINE Vec<T> load(const T* p, int64_t n) {
    Vec<T> v = {};
    std::memcpy(&v, p, n * sizeof(T));
    return v;
}

template <typename T>
VAEFAST_INLINE void store(T* p, Vec<T> v, int64_t n = width<T>) {
    std::memcpy(p, &v, n * sizeof(T));
}

// body(j, n) for every vector of [0, count): n is the vector's width, or what is left of the row.
template <typename T, typename Body>
VAEFAST_INLINE void for_each_vector(int64_t count, Body body) {
    int64_t j = 0;
    for (; j + width<T> <= count; j += width<T>) body(j, width<T>);
    if (j < count) body(j, count - j);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
