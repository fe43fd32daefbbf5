// The triangular factor of a wide matrix of floats, W Wᵀ = L Lᵀ, by Cholesky's method in double.
#pragma once

#include "lq.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t COLUMNS = 32;       // of L at a time
constexpr int64_t SLICE = 2 * DEPTH;  // inputs that are multiplied at a time
constexpr int64_t SLICE_ROWS = 48;    // by so many rows at a time
constexpr int64_t SLICE_STRIDE = SLICE + CACHE_LINE / int64_t(sizeof(double));

struct Cholesky {
    double* g;  // [H, stride], W Wᵀ, whose lower triangle becomes L
    int64_t H, stride;
    double* squares;        // [H], the diagonal of W Wᵀ
    Packed<double> slice;   // of W
    Packed<double> across;  // the rows of L that a block of columns takes
    double* solved;         // [COLUMNS, COLUMNS], the block's own rows of Lᵀ, zero up to their
    double* inverse;        // [COLUMNS] diagonal, whose inverses, or zeros, are here
};

inline Cholesky take_cholesky(Arena& arena, int64_t H) {
    const int64_t n = COLUMNS, stride = padded<double>((H + n - 1) / n * n);
    double* g = arena.take<double>(H * stride);
    double* squares = arena.take<double>(H);
    double* slice = arena.take<double>(packed_size<double>(H, SLICE));
    double* across = arena.take<double>(packed_size<double>(n, H));
    double* solved = arena.take<double>(n * n);
    return {g,
            H,
            stride,
            squares,
            {slice, H, SLICE, false},
            {across, n, H, false},
            solved,
            arena.take<double>(n)};
}

constexpr int64_t CHOLESKY_SCRATCH = scratch_size<double>(MOST_ROWS) + SLICE_ROWS * SLICE_STRIDE;

// Rows of a lower triangle that weigh the same for every worker.
inline Range share_triangle(int64_t H, const Worker& worker) {
    const auto end = [&](int t) { return int64_t(H * __builtin_sqrt(double(t) / worker.threads)); };
    return {end(worker.id), end(worker.id + 1)};
}

// The slice's panels [begin, end) from W in panels of floats, twice as wide, from input k on.
inline void widen_panels(const Packed<double>& to, const Packed<float>& w, int64_t k, Range own) {
    constexpr int64_t n = PANEL<double>;
    static_assert(PANEL<float> == 2 * n, "");
    for (int64_t p = own.begin; p < own.end; ++p) {
        double* panel = to.data + p * to.depth * n;
        const float* from = w.panel(p / 2) + k * 2 * n + p % 2 * n;
        for (int64_t i = 0; i < to.depth; ++i)
            for (int64_t j = 0; j < n; ++j) panel[i * n + j] = double(from[i * 2 * n + j]);
    }
}

// Elements [j, k + i] of W for rows j from `first` on and i < depth.
inline void widen_rows(double* to, const Layer<float>& w, int64_t first, int64_t rows, int64_t k,
                       int64_t depth) {
    for (int64_t r = 0; r < rows; ++r, to += SLICE_STRIDE) {
        const float* from = w.weight + (first + r) * w.row + k * w.column;
        if (w.column == 1)
            for (int64_t i = 0; i < depth; ++i) to[i] = double(from[i]);
        else
            for (int64_t i = 0; i < depth; ++i) to[i] = double(from[i * w.column]);
    }
}

// The lower triangle of W Wᵀ, slice by slice; everyone meets.
inline void square(Cholesky c, const Layer<float>& w, const Packed<float>& packed,
                   const Worker& worker, double* scratch) {
    double* rows = scratch + scratch_size<double>(MOST_ROWS);
    const Range own = share_triangle(c.H, worker);
    for (int64_t k = 0; k < w.inputs; k += SLICE) {
        c.slice.depth = w.inputs - k < SLICE ? w.inputs - k : SLICE;
        widen_panels(c.slice, packed, k, share(c.slice.panels(), worker.id, worker.threads));
        worker.everyone->wait();
        for (int64_t r = own.begin; r < own.end; r += SLICE_ROWS) {
            const int64_t count = own.end - r < SLICE_ROWS ? own.end - r : SLICE_ROWS;
            widen_rows(rows, w, r, count, k, c.slice.depth);
            product(rows, SLICE_STRIDE, count, c.slice, 0, panels_of<double>(r + count), scratch,
                    [&](const Tile<double>& tile) {
                        for (int64_t i = 0; i < count; ++i) {
                            double* to = c.g + (r + i) * c.stride + tile.first;
                            if (k) add_multiple(1, to, tile[i], tile.padded);
                            std::memcpy(to, tile[i], tile.padded * sizeof(double));
                        }
                    });
        }
        worker.everyone->wait();
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
