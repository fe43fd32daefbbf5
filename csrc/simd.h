// Portable vectors of the level's own width, through the compiler's vector extension.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

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

// The integers of a vector's own lanes: a cast between the two keeps the bits.
template <typename T>
struct BitsOf;
template <>
struct BitsOf<float> {
    using type = int32_t;
};
template <>
struct BitsOf<double> {
    using type = int64_t;
};
template <typename T>
using Bits = Vec<typename BitsOf<T>::type>;

template <typename T>
constexpr int64_t width = VAEFAST_VECTOR_BYTES / sizeof(T);

template <typename T>
VAEFAST_INLINE Vec<T> broadcast(T value) {
    return value - Vec<T>{};  // not +, which would lose the sign of −0
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

// The larger and the smaller lane by lane; the second operand where either is NaN.
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
VAEFAST_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm512_min_ps(a, b); }
VAEFAST_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm512_max_pd(a, b); }
VAEFAST_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm512_min_pd(a, b); }
#elif defined(__AVX__)
VAEFAST_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
VAEFAST_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
VAEFAST_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }
VAEFAST_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm256_min_pd(a, b); }
#else
template <typename V>
VAEFAST_INLINE V max(V a, V b) {
    return a > b ? a : b;
}
template <typename V>
VAEFAST_INLINE V min(V a, V b) {
    return a < b ? a : b;
}
#endif

// a·b + c, rounded once where the level has a fused multiply-add.
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm512_fmadd_ps(a, b, c);
}
VAEFAST_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm512_fmadd_pd(a, b, c);
}
#elif defined(__FMA__)
VAEFAST_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return _mm256_fmadd_ps(a, b, c);
}
VAEFAST_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return _mm256_fmadd_pd(a, b, c);
}
#elif defined(__ARM_NEON)
VAEFAST_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
    return vfmaq_f32(c, a, b);
}
VAEFAST_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
    return vfmaq_f64(c, a, b);
}
#else
template <typename V>
VAEFAST_INLINE V fma(V a, V b, V c) {
    return a * b + c;
}
#endif

// v·2ⁿ, rounded once where it is denormal, for integers |n| < 1100 (float: < 200).
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<float> scale(Vec<float> v, Vec<float> n) { return _mm512_scalef_ps(v, n); }
VAEFAST_INLINE Vec<double> scale(Vec<double> v, Vec<double> n) { return _mm512_scalef_pd(v, n); }
#else
// In two steps, 2^⌊n/2⌋ and the rest: either factor is a normal number where the product is not.
template <typename Integers, typename V>
VAEFAST_INLINE V scale_by_halves(V v, V n, V magic, int mantissa, int bias) {
    const Integers sum = (Integers)(n + magic) - (Integers)magic + 2 * bias, half = sum >> 1;
    return v * (V)(half << mantissa) * (V)((sum - half) << mantissa);
}
VAEFAST_INLINE Vec<float> scale(Vec<float> v, Vec<float> n) {
    return scale_by_halves<Vec<uint32_t> >(v, n, broadcast(0x1.8p23f), 23, 127);
}
VAEFAST_INLINE Vec<double> scale(Vec<double> v, Vec<double> n) {
    return scale_by_halves<Vec<uint64_t> >(v, n, broadcast(0x1.8p52), 52, 1023);
}
#endif

// Each adjacent pair of lanes, exchanged.
VAEFAST_INLINE Vec<float> swap_pairs(Vec<float> v) {
    const Vec<uint64_t> pairs = (Vec<uint64_t>)v;
    return (Vec<float>)(pairs << 32 | pairs >> 32);
}
VAEFAST_INLINE Vec<double> swap_pairs(Vec<double> v) {
#if VAEFAST_VECTOR_BYTES == 64
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#elif VAEFAST_VECTOR_BYTES == 32
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
#else
    return __builtin_shufflevector(v, v, 1, 0);
#endif
}

// The sum of all lanes of N vectors, by halves: the same order however wide a vector is.
template <typename T, int64_t N>
VAEFAST_INLINE double sum_lanes(const Vec<T> (&vectors)[N]) {
    T lanes[N * width<T>];
    std::memcpy(lanes, vectors, sizeof lanes);
    for (int64_t half = N * width<T> / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return double(lanes[0]);
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
