// The triangular factor of a wide matrix of floats, W Wᵀ = L Lᵀ, by Cholesky's method in double.
#pragma once

#include "lq.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t COLUMNS = 32;  // of L at a time
constexpr int64_t WIDE_STRIDE = DEPTH + CACHE_LINE / int64_t(sizeof(double));

struct Cholesky {
    double* g;  // [H, stride], W Wᵀ, whose lower triangle becomes L
    int64_t H, stride;
    double* squares;        // [H], the diagonal of W Wᵀ
    double* rows;           // [H, WIDE_STRIDE], DEPTH columns of W
    Packed<double> across;  // the rows of L that a block of columns takes
    double* solved;         // [COLUMNS, COLUMNS], the block's own rows of Lᵀ, zero up to their
    double* inverse;        // [COLUMNS] diagonal, whose inverses, or zeros, are here
};

inline Cholesky take_cholesky(Arena& arena, int64_t H) {
    const int64_t n = COLUMNS, stride = padded<double>((H + n - 1) / n * n);
    double* g = arena.take<double>(H * stride);
    double* squares = arena.take<double>(H);
    double* rows = arena.take<double>(H * WIDE_STRIDE);
    double* across = arena.take<double>(packed_size<double>(n, H));
    double* solved = arena.take<double>(n * n);
    return {g, H, stride, squares, rows, {across, n, H, false}, solved, arena.take<double>(n)};
}

constexpr int64_t CHOLESKY_SCRATCH = scratch_size<double>(MOST_ROWS) + DEPTH * PANEL<double>;

// Rows of a lower triangle that weigh the same for every worker.
inline Range share_triangle(int64_t H, const Worker& worker) {
    const auto end = [&](int t) { return int64_t(H * __builtin_sqrt(double(t) / worker.threads)); };
    return {end(worker.id), end(worker.id + 1)};
}

// Columns [k, k + depth) of a panel of W from panels of floats, which are twice as wide.
inline void widen_panel(double* to, const Packed<float>& w, int64_t p, int64_t k, int64_t depth) {
    constexpr int64_t n = PANEL<double>;
    static_assert(PANEL<float> == 2 * n, "");
    const float* from = w.panel(p / 2) + k * 2 * n + p % 2 * n;
    for (int64_t i = 0; i < depth; ++i)
        for (int64_t j = 0; j < n; ++j) to[i * n + j] = double(from[i * 2 * n + j]);
}

// Columns [k, k + depth) of a row of W.
inline void widen_row(double* to, const Layer<float>& w, int64_t row, int64_t k, int64_t depth) {
    const float* from = w.weight + row * w.row + k * w.column;
    if (w.column == 1)
        for (int64_t i = 0; i < depth; ++i) to[i] = double(from[i]);
    else
        for (int64_t i = 0; i < depth; ++i) to[i] = double(from[i * w.column]);
}

// This worker's rows of the lower triangle of W Wᵀ.
inline void square(const Cholesky& c, const Layer<float>& w, const Packed<float>& packed, Range own,
                   double* scratch) {
    constexpr int64_t n = PANEL<double>;
    double* panel = scratch + scratch_size<double>(MOST_ROWS);
    for (int64_t k = 0; k < w.inputs; k += DEPTH) {
        const int64_t depth = w.inputs - k < DEPTH ? w.inputs - k : DEPTH;
        for (int64_t r = own.begin; r < own.end; ++r)
            widen_row(c.rows + r * WIDE_STRIDE, w, r, k, depth);
        for (int64_t p = 0; p * n < own.end; ++p) {
            widen_panel(panel, packed, p, k, depth);
            int64_t r = p * n > own.begin ? p * n : own.begin;
            for (int64_t count; r < own.end; r += count) {
                count = own.end - r < MOST_ROWS ? own.end - r : MOST_ROWS;
                product(c.rows + r * WIDE_STRIDE, WIDE_STRIDE, count, {panel, n, depth, false}, 0,
                        1, scratch, [&](const Tile<double>& tile) {
                            for (int64_t i = 0; i < count; ++i) {
                                double* to = c.g + (r + i) * c.stride + p * n;
                                if (k) add_multiple(1, to, tile[i], n);
                                std::memcpy(to, tile[i], n * sizeof(double));
                            }
                        });
            }
        }
    }
    for (int64_t r = own.begin; r < own.end; ++r) c.squares[r] = c.g[r * c.stride + r];
}

// The first `count` columns of a row of L below or in the block, from what is left of W Wᵀ.
inline void solve(const Cholesky& c, double* row, int64_t count) {
    for (int64_t j = 0; j < count; ++j) {
        row[j] *= c.inverse[j];
        add_multiple(-row[j], c.solved + j * COLUMNS, row, COLUMNS);
    }
}

// The block's own rows of L. A pivot p of row j that cancelled to round-off leaves a column of
// zeros: what that drops of any element (i, j) is at most √(p·gᵢᵢ) ≤ 2⁻²⁵ |wᵢ| |wⱼ|, less than half
// of a float's round-off.
inline void solve_block(const Cholesky& c, int64_t first, int64_t count) {
    fill(c.solved, 0.0, COLUMNS * COLUMNS);
    for (int64_t r = 0; r < count; ++r) {
        double* row = c.g + (first + r) * c.stride + first;
        solve(c, row, r);
        double pivot = row[r];
        for (int64_t j = 0; j < r; ++j) {
            c.solved[j * COLUMNS + r] = row[j];
            pivot -= row[j] * row[j];
        }
        const bool kept = pivot > 0x1p-50 * c.squares[first + r];
        row[r] = kept ? __builtin_sqrt(pivot) : 0;
        c.inverse[r] = kept ? 1 / row[r] : 0;
    }
}

// L from the lower triangle of W Wᵀ, block of columns by block; everyone meets.
inline void factorize(Cholesky c, const Worker& worker, double* scratch) {
    for (int64_t first = 0; first < c.H; first += COLUMNS) {
        const int64_t count = c.H - first < COLUMNS ? c.H - first : COLUMNS;
        worker.everyone->wait();
        c.across.outputs = count;
        c.across.depth = first;
        const Range panels = share(c.across.panels(), worker.id, worker.threads);
        pack(c.across, c.g + first * c.stride, c.stride, 1, panels.begin, panels.end);
        worker.everyone->wait();
        const Range own = share(first ? c.H - first : 0, worker.id, worker.threads);
        for (int64_t r = first + own.begin; r < first + own.end; r += MOST_ROWS) {
            const int64_t left = first + own.end - r, rows = left < MOST_ROWS ? left : MOST_ROWS;
            double* row = c.g + r * c.stride;
            product(row, c.stride, rows, c.across, 0, c.across.panels(), scratch,
                    [&](const Tile<double>& tile) {
                        for (int64_t i = 0; i < rows; ++i)
                            add_multiple(-1, tile[i], row + i * c.stride + first + tile.first,
                                         tile.count);
                    });
        }
        worker.everyone->wait();
        if (worker.id == 0) solve_block(c, first, count);
        worker.everyone->wait();
        const Range below = share(c.H - first - count, worker.id, worker.threads);
        for (int64_t r = below.begin; r < below.end; ++r)
            solve(c, c.g + (first + count + r) * c.stride + first, COLUMNS);
    }
    worker.everyone->wait();
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
