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
    return value - Vec<T>{};  // exact, also for −0, so the compiler drops the subtraction
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

// The larger and the smaller lane by lane; the second operand where either is NaN. Then as many
// floats from p as a vector holds doubles.
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm512_max_ps(a, b); }
VAEFAST_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm512_min_ps(a, b); }
VAEFAST_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm512_max_pd(a, b); }
VAEFAST_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm512_min_pd(a, b); }
VAEFAST_INLINE Vec<double> widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
#elif defined(__AVX__)
VAEFAST_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
VAEFAST_INLINE Vec<float> min(Vec<float> a, Vec<float> b) { return _mm256_min_ps(a, b); }
VAEFAST_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }
VAEFAST_INLINE Vec<double> min(Vec<double> a, Vec<double> b) { return _mm256_min_pd(a, b); }
VAEFAST_INLINE Vec<double> widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
#else
template <typename V>
VAEFAST_INLINE V max(V a, V b) {
    return a > b ? a : b;
}
template <typename V>
VAEFAST_INLINE V min(V a, V b) {
    return a < b ? a : b;
}
VAEFAST_INLINE Vec<double> widen(const float* p) {
    Vec<double> v;
    for (int i = 0; i < width<double>; ++i) v[i] = p[i];
    return v;
}
#endif

// Tell the processor that this thread waits in a loop.
VAEFAST_INLINE void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Have the processor bring `bytes` at p to its second-level cache.
template <int bytes, typename T>
VAEFAST_INLINE void fetch(const T* p) {
#pragma GCC unroll 2
    for (int line = 0; line < bytes; line += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(p) + line, 0, 2);
}

// Keep v in a register: the compiler would rather load it anew for each of its uses.
template <typename V>
VAEFAST_INLINE void in_register(V& v) {
#if defined(__AVX__)
    __asm__("" : "+v"(v));
#elif defined(__ARM_NEON)
    __asm__("" : "+w"(v));
#else
    (void)v;
#endif
}

// The same for an address, of which the compiler then knows nothing.
template <typename T>
VAEFAST_INLINE void in_register(const T*& p) {
    __asm__("" : "+r"(p));
}

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

// Whether the level turns blocks of T in registers.
template <typename T>
constexpr bool TRANSPOSES = false;

#if defined(__AVX__)
template <>
constexpr bool TRANSPOSES<float> = true;

// Four elements each from p, p + stride, ...: one quad for every four lanes.
VAEFAST_INLINE Vec<float> load_quads(const float* p, int64_t stride) {
    const __m256 low =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
#if defined(__AVX512F__)
    const __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 2 * stride)),
                                             _mm_loadu_ps(p + 3 * stride), 1);
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#else
    return low;
#endif
}

// Lane 4g + i of v[t] becomes what lane 4g + t of v[i] was.
VAEFAST_INLINE void transpose_quads(Vec<float> (&v)[4]) {
#if defined(__AVX512F__)
    const auto low = [](Vec<float> a, Vec<float> b) { return _mm512_unpacklo_ps(a, b); };
    const auto high = [](Vec<float> a, Vec<float> b) { return _mm512_unpackhi_ps(a, b); };
    const auto lows = [](Vec<float> a, Vec<float> b) { return _mm512_shuffle_ps(a, b, 0x44); };
    const auto highs = [](Vec<float> a, Vec<float> b) { return _mm512_shuffle_ps(a, b, 0xee); };
#else
    const auto low = [](Vec<float> a, Vec<float> b) { return _mm256_unpacklo_ps(a, b); };
    const auto high = [](Vec<float> a, Vec<float> b) { return _mm256_unpackhi_ps(a, b); };
    const auto lows = [](Vec<float> a, Vec<float> b) { return _mm256_shuffle_ps(a, b, 0x44); };
    const auto highs = [](Vec<float> a, Vec<float> b) { return _mm256_shuffle_ps(a, b, 0xee); };
#endif
    const Vec<float> a = low(v[0], v[1]), b = high(v[0], v[1]), c = low(v[2], v[3]),
                     d = high(v[2], v[3]);
    v[0] = lows(a, c);
    v[1] = highs(a, c);
    v[2] = lows(b, d);
    v[3] = highs(b, d);
}
#endif

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

// √v lane by lane.
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<double> sqrt(Vec<double> v) { return _mm512_sqrt_pd(v); }
#elif defined(__AVX__)
VAEFAST_INLINE Vec<double> sqrt(Vec<double> v) { return _mm256_sqrt_pd(v); }
#elif defined(__ARM_NEON)
VAEFAST_INLINE Vec<double> sqrt(Vec<double> v) { return vsqrtq_f64(v); }
#else
VAEFAST_INLINE Vec<double> sqrt(Vec<double> v) {
    for (int64_t l = 0; l < width<double>; ++l) v[l] = __builtin_sqrt(v[l]);
    return v;
}
#endif

// The 64-bit products of the lanes' low 32 bits.
VAEFAST_INLINE uint64_t multiply_low(uint64_t a, uint64_t b) {
    return uint32_t(a) * (b << 32 >> 32);
}
#if defined(__AVX512F__)
VAEFAST_INLINE Vec<uint64_t> multiply_low(Vec<uint64_t> a, Vec<uint64_t> b) {
    return (Vec<uint64_t>)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
VAEFAST_INLINE Vec<uint64_t> multiply_low(Vec<uint64_t> a, Vec<uint64_t> b) {
    return (Vec<uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#else
VAEFAST_INLINE Vec<uint64_t> multiply_low(Vec<uint64_t> a, Vec<uint64_t> b) {
    return (a << 32 >> 32) * (b << 32 >> 32);
}
#endif

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
