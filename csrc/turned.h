// The product of few rows with weights that lie packed the other way, Wᵀ instead of W.
//
// A few rows need each weight once, so reading it costs more than multiplying. Blocks of Wᵀ are
// turned in registers, and the two directions of a network share one copy, which then fits the
// second-level caches twice as long. Sums run in the order of product.h: the bits are the same.
#pragma once

#include "product.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t FEW_ROWS = 4;
constexpr int64_t OWN_CACHE = 1 << 20;  // bytes of weights that a thread keeps close

// sums [M] of one vector of outputs += x [M, depth ≤ PANEL] times a block of Wᵀ: its element
// [k, j] lies at block[j·PANEL + k].
template <typename T, int M>
VAEFAST_INLINE void turn_and_add(const T* x, int64_t ldx, const T* block, int64_t depth,
                                 Vec<T> (&sums)[M]) {
    for (int64_t k = 0; k < depth; k += 4) {
        Vec<T> w[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) w[i] = load_quads(block + i * PANEL<T> + k, 4 * PANEL<T>);
        turn_quads(w);
        const int64_t left = depth - k < 4 ? depth - k : 4;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            if (i >= left) break;
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) sums[m] = fma(broadcast(x[m * ldx + k + i]), w[i], sums[m]);
        }
    }
}

// sums [M, ·] (+)= x [M, ·] times rows [first, last) of one panel of Wᵀ, of `depth` columns.
template <typename T, int M>
void turned_panel(const T* x, int64_t ldx, const T* panel, int64_t first, int64_t last,
                  int64_t depth, T* sums, int64_t stride, bool add) {
    for (int64_t j = first; j < last; j += width<T>) {
        T padded[width<T> * PANEL<T>];
        const T* block = panel + j * PANEL<T>;
        if (last - j < width<T>) {
            std::memset(padded, 0, sizeof padded);
            std::memcpy(padded, block, (last - j) * PANEL<T> * sizeof(T));
            block = padded;
        }
        Vec<T> own[M];
        for (int m = 0; m < M; ++m) {
            own[m] = Vec<T>{};
            if (add) own[m] = load(sums + m * stride + j - first);
        }
        if (depth == PANEL<T>)
            turn_and_add<T, M>(x, ldx, block, PANEL<T>, own);
        else
            turn_and_add<T, M>(x, ldx, block, depth, own);
        for (int m = 0; m < M; ++m) store<T>(sums + m * stride + j - first, own[m]);
    }
}

// The product with outputs [begin, end) of W, given as `turned` = Wᵀ: epilogue(tile).
template <typename T, int M, typename Epilogue>
void turned_product(const T* x, int64_t ldx, const Packed<T>& turned, int64_t begin, int64_t end,
                    T* scratch, Epilogue epilogue) {
    const int64_t outputs = turned.depth, inputs = turned.outputs;
    const int64_t first = begin * PANEL<T>, padded = (end - begin) * PANEL<T>;
    const int64_t last = end * PANEL<T> < outputs ? end * PANEL<T> : outputs;
    if (first >= last) return;
    T* sums = scratch + M * padded;  // of DEPTH inputs at a time
    for (int64_t k = 0; k < inputs; k += PANEL<T>) {
        const int64_t depth = inputs - k < PANEL<T> ? inputs - k : PANEL<T>;
        const bool starts = k % DEPTH == 0, ends = (k + PANEL<T>) % DEPTH == 0;
        turned_panel<T, M>(x + k, ldx, turned.panel(k / PANEL<T>), first, last, depth, sums, padded,
                           !starts);
        if (!ends && k + PANEL<T> < inputs) continue;
        for (int64_t j = 0; j < M * padded; j += width<T>)
            store<T>(scratch + j, k < DEPTH ? load(sums + j) : load(scratch + j) + load(sums + j));
    }
    epilogue(Tile<T>{scratch, padded, first, last - first, padded});
}

template <typename T, typename Epilogue>
void turned_product(const T* x, int64_t ldx, int64_t rows, const Packed<T>& turned, int64_t begin,
                    int64_t end, T* scratch, Epilogue epilogue) {
    switch (rows) {
        case 1:
            return turned_product<T, 1>(x, ldx, turned, begin, end, scratch, epilogue);
        case 2:
            return turned_product<T, 2>(x, ldx, turned, begin, end, scratch, epilogue);
        case 3:
            return turned_product<T, 3>(x, ldx, turned, begin, end, scratch, epilogue);
        default:
            return turned_product<T, 4>(x, ldx, turned, begin, end, scratch, epilogue);
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
