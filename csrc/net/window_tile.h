// The register tile of a convolution: rows of pixels times panels, k in segments.
#pragma once

#include "net/product.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Neighbouring values of k: where they begin in a row of x and in a panel.
struct Segment {
    int64_t x, weights, count;
};

// tile [M, V vectors] (+)= x times V vectors of outputs, in panels of at most two; the tile's part
// of the second panel lies `next_tile` further. A sum goes on where the last chunk of k left it, so
// that its bits do not depend on how k is cut.
template <typename T, int M, int V>
void window_tile(const T* x, int64_t ldx, const T* panel, int64_t next_panel,
                 const Segment* segments, int64_t count, T* tile, int64_t ldt, int64_t next_tile,
                 bool add) {
    constexpr int quads = (M + 3) / 4, each = V < 2 ? V : 2;
    constexpr int64_t lanes = each * width<T>;
    const auto at = [=](int m, int v) VAEFAST_FLAT {
        return tile + v / each * next_tile + m * ldt + v % each * width<T>;
    };
    Vec<T> sums[M][V] = {};
    if (add)
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[m][v] = load(at(m, v));
    for (int64_t s = 0; s < count; ++s) {
        const T* quad[quads];
        for (int q = 0; q < quads; ++q) quad[q] = x + segments[s].x + 4 * q * ldx;
        const T* from = panel + segments[s].weights;
        for (int64_t k = 0; k < segments[s].count; ++k) {
            Vec<T> w[V];
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) {
                w[v] = load(from + v / each * next_panel + v % each * width<T>);
                if (M > 1) in_register(w[v]);
            }
            from += lanes;
#pragma GCC unroll 16
            for (int m = 0; m < M; ++m) {
                const Vec<T> xk = broadcast(quad[m / 4][m % 4 * ldx]);
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) sums[m][v] = fma(xk, w[v], sums[m][v]);
            }
#pragma GCC unroll 4
            for (int q = 0; q < quads; ++q) in_register(++quad[q]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store<T>(at(m, v), sums[m][v]);
}

template <typename T>
using WindowTile = void (*)(const T*, int64_t, const T*, int64_t, const Segment*, int64_t, T*,
                            int64_t, int64_t, bool);

constexpr int64_t WIDE_ROWS = ROWS / 2;  // of a tile of four vectors

template <typename T>
WindowTile<T> window_tile_of(int64_t rows, int64_t vectors) {
#define VAEFAST_SIX(V, first)                                                             \
    window_tile<T, first, V>, window_tile<T, first + 1, V>, window_tile<T, first + 2, V>, \
        window_tile<T, first + 3, V>, window_tile<T, first + 4, V>, window_tile<T, first + 5, V>
    static constexpr WindowTile<T> one[] = {VAEFAST_SIX(1, 1),
                                            VAEFAST_WITH_32_REGISTERS(VAEFAST_SIX(1, 7))};
    static constexpr WindowTile<T> two[] = {VAEFAST_SIX(2, 1),
                                            VAEFAST_WITH_32_REGISTERS(VAEFAST_SIX(2, 7))};
    static constexpr WindowTile<T> four[] = {
        window_tile<T, 1, 4>, window_tile<T, 2, 4>, window_tile<T, 3, 4>,
        VAEFAST_WITH_32_REGISTERS(window_tile<T, 4, 4>, window_tile<T, 5, 4>,
                                  window_tile<T, 6, 4>)};
#undef VAEFAST_SIX
    return (vectors == 1 ? one : vectors == 2 ? two : four)[rows - 1];
}

// A direction in which tiles repeat: steps in x and in the tile.
struct Dimension {
    int64_t count, x, tile;
};

// One chunk of k for all of a grid of rows; tiles take their rows along its first dimension.
template <typename T>
void window_grid(const T* x, const T* panel, int64_t next_panel, const Segment* segments,
                 int64_t count, T* tile, int64_t next_tile, const Dimension (&grid)[3],
                 int64_t vectors, bool add) {
    const Dimension &rows = grid[0], &b = grid[1], &c = grid[2];
    const int64_t most = vectors == 4 ? WIDE_ROWS : ROWS, pieces = (rows.count + most - 1) / most;
    for (int64_t i = 0; i < b.count; ++i)
        for (int64_t j = 0; j < c.count; ++j)
            for (int64_t n = 0; n < pieces; ++n) {
                const int64_t r = rows.count * n / pieces;
                window_tile_of<T>(rows.count * (n + 1) / pieces - r, vectors)(
                    x + i * b.x + j * c.x + r * rows.x, rows.x, panel, next_panel, segments, count,
                    tile + i * b.tile + j * c.tile + r * rows.tile, rows.tile, next_tile, add);
            }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
