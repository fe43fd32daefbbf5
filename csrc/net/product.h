// Rows times packed weights, Y = X Wᵀ: every element is one sum over k in ascending order.
//
// Weights are packed into panels of PANEL outputs, k-major, zero-padded, so that a vector holds
// outputs and never a range of k. A sum runs in registers for DEPTH values of k and is then added
// to the tile; the order depends on the widths alone, not on the number of rows or threads.
#pragma once

#include "kernels.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

#if defined(__AVX512F__) || defined(__ARM_NEON)
#define VAEFAST_WITH_32_REGISTERS(...) __VA_ARGS__
constexpr int64_t REGISTERS = 32;
constexpr int64_t ROWS = 12;  // rows of a register tile: 24 registers accumulate
#else
#define VAEFAST_WITH_32_REGISTERS(...)
constexpr int64_t REGISTERS = 16;
constexpr int64_t ROWS = 6;  // 12 registers accumulate
#endif
template <typename T>
constexpr int64_t PANEL = 2 * width<T>;
constexpr int64_t DEPTH = 256;       // of k at a time: a panel's share stays in L1
constexpr int64_t WIDEST_GROUP = 4;  // panels that few rows take together

template <typename T>
constexpr int64_t panels_of(int64_t outputs) {
    return (outputs + PANEL<T> - 1) / PANEL<T>;
}

// Weights [outputs, depth] as panels [outputs / PANEL][depth][PANEL].
template <typename T>
struct Packed {
    T* data;
    int64_t outputs, depth;
    bool triangular;     // W[j, k] = 0 where k < j: a panel's sums start at its first output
    bool ready = false;  // packed before the call

    Packed as_ready() const { return {data, outputs, depth, triangular, true}; }
    int64_t panels() const { return panels_of<T>(outputs); }
    const T* panel(int64_t p) const { return data + p * depth * PANEL<T>; }
};

template <typename T>
constexpr int64_t packed_size(int64_t outputs, int64_t depth) {
    return panels_of<T>(outputs) * depth * PANEL<T>;
}

// Panel [depth, PANEL] of `lanes` outputs whose elements [j, k] lie at w[j·row + k·column].
template <typename T>
void pack_any(T* panel, const T* w, int64_t row, int64_t column, int64_t lanes, int64_t depth) {
    constexpr int64_t strip = 16;  // of k, so that what is written stays in cache
    for (int64_t k0 = 0; k0 < depth; k0 += strip) {
        const int64_t k1 = depth - k0 < strip ? depth : k0 + strip;
        for (int64_t j = 0; j < PANEL<T>; ++j)
            for (int64_t k = k0; k < k1; ++k)
                panel[k * PANEL<T> + j] = j < lanes ? w[j * row + k * column] : T(0);
    }
}

// A vector of a panel's outputs, rows of W, transposed in registers; zeros from `lanes` on.
template <typename T>
void pack_transposed(T* panel, const T* w, int64_t row, int64_t lanes, int64_t depth) {
    if constexpr (TRANSPOSES<T>) {
        if (lanes <= 0) {
            for (int64_t k = 0; k < depth; ++k) store<T>(panel + k * PANEL<T>, Vec<T>{});
            return;
        }
        constexpr int64_t strip = 16;  // of k, a cache line of floats
        T copy[width<T> * strip] = {};
        for (int64_t k0 = 0; k0 < depth; k0 += strip) {
            const int64_t count = depth - k0 < strip ? depth - k0 : strip;
            const bool whole = lanes >= width<T> && count == strip;
            for (int64_t j = 0; !whole && j < lanes && j < width<T>; ++j)
                std::memcpy(copy + j * strip, w + j * row + k0, count * sizeof(T));
            const T* from = whole ? w + k0 : copy;
            const int64_t apart = whole ? row : strip;
            for (int64_t k = 0; k < count; k += 4) {
                Vec<T> v[4];
                for (int64_t i = 0; i < 4; ++i) v[i] = load_quads(from + i * apart + k, 4 * apart);
                transpose_quads(v);
                for (int64_t i = 0; i < 4 && k + i < count; ++i)
                    store<T>(panel + (k0 + k + i) * PANEL<T>, v[i]);
            }
        }
    }
}

// Pack panels [begin, end) of W, whose element [j, k] lies at w[j·row + k·column].
template <typename T>
void pack(const Packed<T>& to, const T* w, int64_t row, int64_t column, int64_t begin,
          int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
        T* panel = to.data + p * to.depth * PANEL<T>;
        const T* first = w + p * PANEL<T> * row;
        const int64_t left = to.outputs - p * PANEL<T>, lanes = left < PANEL<T> ? left : PANEL<T>;
        if (lanes == PANEL<T> && row == 1)
            for (int64_t k = 0; k < to.depth; ++k)
                std::memcpy(panel + k * PANEL<T>, first + k * column, PANEL<T> * sizeof(T));
        else if (TRANSPOSES<T> && column == 1)
            for (int64_t j = 0; j < PANEL<T>; j += width<T>)
                pack_transposed(panel + j, first + j * row, row, lanes - j, to.depth);
        else
            pack_any(panel, first, row, column, lanes, to.depth);
    }
}

// tile [M, P·PANEL] (+)= x [M, depth] times P neighbouring panels; `next` is what follows in them.
template <typename T, int M, int P>
void register_tile(const T* x, int64_t ldx, const T* panel, int64_t next_panel, int64_t depth,
                   T* tile, int64_t ldt, bool add, const T* next, int64_t ahead) {
    constexpr int quads = (M + 3) / 4;  // of rows: an address for each row would not fit registers
    const T* quad[quads];
    for (int q = 0; q < quads; ++q) quad[q] = x + 4 * q * ldx;
    Vec<T> sums[M][2 * P] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Vec<T> w[2 * P];
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) {
            w[2 * p] = load(panel + p * next_panel + k * PANEL<T>);
            w[2 * p + 1] = load(panel + p * next_panel + k * PANEL<T> + width<T>);
            if (M > 1) in_register(w[2 * p]), in_register(w[2 * p + 1]);
            if (M > 4) fetch<2 * VAEFAST_VECTOR_BYTES>(next + p * next_panel + k * ahead);
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const Vec<T> xk = broadcast(quad[m / 4][m % 4 * ldx]);
#pragma GCC unroll 8
            for (int v = 0; v < 2 * P; ++v) sums[m][v] = fma(xk, w[v], sums[m][v]);
        }
#pragma GCC unroll 4
        for (int q = 0; q < quads; ++q) in_register(++quad[q]);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < 2 * P; ++v) {
            T* to = tile + m * ldt + v * width<T>;
            store<T>(to, add ? load(to) + sums[m][v] : sums[m][v]);
        }
}

template <typename T>
using RegisterTile = void (*)(const T*, int64_t, const T*, int64_t, int64_t, T*, int64_t, bool,
                              const T*, int64_t);

// The register tile of `rows` rows and `group` panels, as group_of chooses it.
template <typename T>
RegisterTile<T> register_tile_of(int64_t rows, int64_t group) {
    static constexpr RegisterTile<T> one[] = {
        register_tile<T, 1, 1>,
        register_tile<T, 2, 1>,
        register_tile<T, 3, 1>,
        register_tile<T, 4, 1>,
        register_tile<T, 5, 1>,
        register_tile<T, 6, 1>,
        VAEFAST_WITH_32_REGISTERS(register_tile<T, 7, 1>, register_tile<T, 8, 1>,
                                  register_tile<T, 9, 1>, register_tile<T, 10, 1>,
                                  register_tile<T, 11, 1>, register_tile<T, 12, 1>)};
    static constexpr RegisterTile<T> two[] = {
        register_tile<T, 1, 2>, register_tile<T, 2, 2>,
        VAEFAST_WITH_32_REGISTERS(register_tile<T, 3, 2>, register_tile<T, 4, 2>,
                                  register_tile<T, 5, 2>, register_tile<T, 6, 2>)};
    static constexpr RegisterTile<T> four[] = {register_tile<T, 1, 4>,
                                               VAEFAST_WITH_32_REGISTERS(register_tile<T, 2, 4>)};
    return (group == 1 ? one : group == 2 ? two : four)[rows - 1];
}

// How many panels so few rows take together: enough sums to hide a multiply-add's latency.
VAEFAST_INLINE int64_t group_of(int64_t rows) {
    for (int64_t group = WIDEST_GROUP; group > 1; group /= 2)
        if (rows == 1 || 2 * group * (rows + 1) + 1 <= REGISTERS) return group;
    return 1;
}

// What a product leaves in its scratch: the sums of some rows for neighbouring outputs.
template <typename T>
struct Tile {
    T* data;
    int64_t stride;  // from row to row
    int64_t first;   // output
    int64_t count;   // of outputs
    int64_t padded;  // in whole panels; what lies beyond `count` means nothing

    T* operator[](int64_t row) const { return data + row * stride; }
};

template <typename T>
constexpr int64_t scratch_size(int64_t rows) {
    return (rows < ROWS ? ROWS : rows) * WIDEST_GROUP * PANEL<T>;
}

// The product of `rows` rows with panels [begin, end), group by group: epilogue(tile).
template <typename T, typename Epilogue>
void product(const T* x, int64_t ldx, int64_t rows, const Packed<T>& w, int64_t begin, int64_t end,
             T* scratch, Epilogue epilogue) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS, widest = w.triangular ? 1 : group_of(rows);
    const int64_t stride = widest * PANEL<T>;
    for (int64_t p = begin, group; p < end; p += group) {
        group = widest;
        while (group > end - p) group /= 2;
        int64_t k = w.triangular ? p * PANEL<T> : 0;
        bool add = false;
        do {
            const int64_t depth = w.depth - k < DEPTH ? w.depth - k : DEPTH;
            const T* panel = w.panel(p) + k * PANEL<T>;
            const T* next = k + DEPTH < w.depth ? panel + DEPTH * PANEL<T> : w.panel(p + group);
            const int64_t ahead = PANEL<T> / blocks;
            for (int64_t b = 0; b < blocks; ++b) {
                const int64_t r = rows * b / blocks, count = rows * (b + 1) / blocks - r;
                register_tile_of<T>(count, group)(x + r * ldx + k, ldx, panel, w.depth * PANEL<T>,
                                                  depth, scratch + r * stride, stride, add,
                                                  next + b * depth * ahead, ahead);
            }
            add = true;
            k += DEPTH;
        } while (k < w.depth);
        const int64_t first = p * PANEL<T>, padded = group * PANEL<T>, left = w.outputs - first;
        epilogue(Tile<T>{scratch, stride, first, left < padded ? left : padded, padded});
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
