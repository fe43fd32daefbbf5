// Counter-based random numbers, Philox 4x32-10: the integers and normals of vaefast.philox.
#pragma once

#include "kernels.h"
#include "simd/box_muller.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Four 32-bit words, each in the low half of a 64-bit lane; the high halves mean nothing.
template <typename Word>
struct Block {
    Word words[4];
};

template <typename Word>
VAEFAST_INLINE Block<Word> philox(Block<Word> counter, uint64_t seed) {
    Word c0 = counter.words[0], c1 = counter.words[1], c2 = counter.words[2], c3 = counter.words[3];
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const Word a = multiply_low(c0, Word{} + 0xD2511F53u);
        const Word b = multiply_low(c2, Word{} + 0xCD9E8D57u);
        c0 = (b >> 32) ^ c1 ^ k0;
        c2 = (a >> 32) ^ c3 ^ k1;
        c1 = b;
        c3 = a;
    }
    return {{c0, c1, c2, c3}};
}

// The block of elements 4·number to 4·number + 3.
template <typename Word>
VAEFAST_INLINE Block<Word> draw(const Counter& c, Word number) {
    const uint64_t index = uint64_t(c.index);
    const uint64_t last = uint64_t(c.use) << 24 | uint64_t(c.lane) << 12 | index >> 32;
    return philox<Word>({{number, Word{} + c.step, Word{} + index, Word{} + last}}, c.seed);
}

inline void integers(const Counter& counter, int64_t first, uint32_t* out, int64_t count) {
    for (int64_t e = first; e < first + count; ++e)
        out[e - first] = uint32_t(draw<uint64_t>(counter, uint64_t(e / 4)).words[e % 4]);
}

inline double uniform(const Counter& counter, int64_t element) {
    uint32_t k;
    integers(counter, element, &k, 1);
    return (double(k) + 0.5) * 0x1p-32;
}

// (k + ½)·2⁻³² of the low 32 bits of each lane.
VAEFAST_INLINE Vec<double> uniforms(Vec<uint64_t> k) {
    const Vec<uint64_t> exponent = broadcast<uint64_t>(0x4330000000000000u);  // 2⁵²
    return ((Vec<double>)(k << 32 >> 32 | exponent) - 0x1p52 + 0.5) * 0x1p-32;
}

// Element e: Box-Muller on its pair of uniforms, elements 2·(e / 2) and the next.
template <typename T>
void normals(const Counter& counter, T* out, int64_t count) {
    constexpr int64_t W = width<double>;
    Vec<uint64_t> number = {};
    for (int64_t l = 0; l < W; ++l) number[l] = uint64_t(l);
    for (int64_t j = 0; j < count; j += 4 * W, number += W) {
        const Block<Vec<uint64_t>> drawn = draw(counter, number);
        double lanes[4][W];
        for (int64_t pair = 0; pair < 4; pair += 2)
            box_muller(uniforms(drawn.words[pair]), uniforms(drawn.words[pair + 1]), lanes[pair],
                       lanes[pair + 1]);
        T results[4 * W];
        for (int64_t e = 0; e < 4 * W; ++e) results[e] = T(lanes[e % 4][e / 4]);
        std::memcpy(out + j, results, (count - j < 4 * W ? count - j : 4 * W) * sizeof(T));
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
