// The product of few rows with weights that lie packed the other way, Wᵀ instead of W.
//
// A few rows need each weight once, so reading it costs more than multiplying. Blocks of Wᵀ are
// transposed in registers, and the two directions of a network share one copy, which then fits the
// second-level caches twice as long. Sums run in the order of product.h: the bits are the same.
#pragma once

#include "net/product.h"
#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t FEW_ROWS = 4;
constexpr int64_t OWN_CACHE = 1 << 20;  // bytes of weights that a thread keeps close

// sums [M] of one vector of outputs += x [M, depth ≤ PANEL] times a block of Wᵀ: its element
// [k, j] lies at block[j·PANEL + k].
template <typename T, int M>
VAEFAST_INLINE void transpose_and_add(const T* x, int64_t ldx, const T* block, int64_t depth,
                                      Vec<T> (&sums)[M]) {
    for (int64_t k = 0; k < depth; k += 4) {
        Vec<T> w[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) w[i] = load_quads(block + i * PANEL<T> + k, 4 * PANEL<T>);
        transpose_quads(w);
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
void transposed_panel(const T* x, int64_t ldx, const T* panel, int64_t first, int64_t last,
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
            transpose_and_add<T, M>(x, ldx, block, PANEL<T>, own);
        else
            transpose_and_add<T, M>(x, ldx, block, depth, own);
        for (int m = 0; m < M; ++m) store<T>(sums + m * stride + j - first, own[m]);
    }
}

// Sums of outputs [first, last) over block `number` of DEPTH inputs: sums [M, ·].
template <typename T, int M>
void transposed_block(const T* x, int64_t ldx, const Packed<T>& transposed, int64_t number,
                      int64_t first, int64_t last, T* sums, int64_t stride) {
    const int64_t begin = number * DEPTH, inputs = transposed.outputs;
    const int64_t end = inputs - begin < DEPTH ? inputs : begin + DEPTH;
    for (int64_t k = begin; k < end; k += PANEL<T>) {
        const int64_t depth = end - k < PANEL<T> ? end - k : PANEL<T>;
        transposed_panel<T, M>(x + k, ldx, transposed.panel(k / PANEL<T>), first, last, depth, sums,
                               stride, k > begin);
    }
}

template <typename T>
using TransposedBlock = void (*)(const T*, int64_t, const Packed<T>&, int64_t, int64_t, int64_t, T*,
                                 int64_t);

constexpr int64_t blocks_of(int64_t inputs) { return (inputs + DEPTH - 1) / DEPTH; }

// Elements that the sums of all blocks take: [blocks, FEW_ROWS, outputs in whole panels].
template <typename T>
constexpr int64_t transposed_size(int64_t outputs, int64_t inputs) {
    return blocks_of(inputs) * FEW_ROWS * panels_of<T>(outputs) * PANEL<T>;
}

// The product of x with W, given as `transposed` = Wᵀ: epilogue(tile) for this worker's outputs.
// The team shares the blocks of inputs, as it shares the panels of Wᵀ when it goes back, so that
// each thread meets the same weights both ways.
template <typename T, typename Epilogue>
void transposed_product(const T* x, int64_t ldx, int64_t rows, const Packed<T>& transposed,
                        const Worker& worker, T* sums, T* scratch, Epilogue epilogue) {
    static constexpr TransposedBlock<T> block_of[] = {
        transposed_block<T, 1>, transposed_block<T, 2>, transposed_block<T, 3>,
        transposed_block<T, 4>};
    const int64_t blocks = blocks_of(transposed.outputs), panels = panels_of<T>(transposed.depth);
    const int64_t stride = panels * PANEL<T>, size = FEW_ROWS * stride;
    const Range own = share(panels, worker.rank, worker.ranks);
    const int64_t first = own.begin * PANEL<T>, padded = own.size() * PANEL<T>;
    const int64_t last = transposed.depth - first < padded ? transposed.depth : first + padded;
    const bool by_blocks = blocks >= worker.ranks;
    const Range mine = by_blocks ? share(blocks, worker.rank, worker.ranks) : Range{0, blocks};
    for (int64_t b = mine.begin; b < mine.end; ++b) {
        const int64_t j = by_blocks ? 0 : first, end = by_blocks ? transposed.depth : last;
        if (j < end) block_of[rows - 1](x, ldx, transposed, b, j, end, sums + b * size + j, stride);
    }
    worker.sync();
    if (first >= last) return;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < padded; j += width<T>) {
            const T* at = sums + r * stride + first + j;
            Vec<T> total = load(at);
            for (int64_t b = 1; b < blocks; ++b) total = total + load(at + b * size);
            store<T>(scratch + r * padded + j, total);
        }
    epilogue(Tile<T>{scratch, padded, first, last - first, padded});
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
