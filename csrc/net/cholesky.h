// The triangular factor of a wide matrix of floats, W Wᵀ = L Lᵀ, by Cholesky's method in double.
#pragma once

#include "net/lq.h"

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
    double* minus;          // [COLUMNS, COLUMNS], the block's own rows of −Lᵀ
    double* inverse;        // [COLUMNS], of its diagonal, or zeros
};

inline Cholesky take_cholesky(Arena& arena, int64_t H) {
    const int64_t n = COLUMNS, stride = padded<double>((H + n - 1) / n * n);
    double* g = arena.take<double>(H * stride);
    double* squares = arena.take<double>(H);
    double* rows = arena.take<double>(H * WIDE_STRIDE);
    double* across = arena.take<double>(packed_size<double>(n, H));
    double* minus = arena.take<double>(n * n);
    return {g, H, stride, squares, rows, {across, n, H, false}, minus, arena.take<double>(n)};
}

constexpr int64_t CHOLESKY_SCRATCH = scratch_size<double>(MOST_ROWS) + DEPTH * PANEL<double>;

// Rows of a lower triangle that weigh the same for every worker: row r takes r / PANEL + 1 panels.
inline Range share_triangle(int64_t H, const Worker& worker) {
    constexpr double least = PANEL<double>;
    const double all = (double(H) + 2 * least) * double(H);
    const auto end = [&](int t) {
        return int64_t(__builtin_sqrt(all * t / worker.threads + least * least) - least);
    };
    return {end(worker.id), worker.id + 1 < worker.threads ? end(worker.id + 1) : H};
}

// Columns [k, k + depth) of a panel of W from panels of floats, which are twice as wide.
inline void widen_panel(double* to, const Packed<float>& w, int64_t p, int64_t k, int64_t depth) {
    constexpr int64_t n = PANEL<double>;
    static_assert(PANEL<float> == 2 * n, "");
    const float* from = w.panel(p / 2) + k * 2 * n + p % 2 * n;
    for (int64_t i = 0; i < depth; ++i)
        for (int64_t j = 0; j < n; j += width<double>)
            store<double>(to + i * n + j, widen(from + i * 2 * n + j));
}

// Columns [k, k + depth) of a row of W.
inline void widen_row(double* to, const Layer<float>& w, int64_t row, int64_t k, int64_t depth) {
    const float* from = w.weight + row * w.row + k * w.column;
    int64_t i = 0;
    for (; w.column == 1 && i + width<double> <= depth; i += width<double>)
        store<double>(to + i, widen(from + i));
    for (; i < depth; ++i) to[i] = double(from[i * w.column]);
}

// This worker's rows of the lower triangle of W Wᵀ.
inline void square(const Cholesky& c, const Layer<float>& w, const Packed<float>& packed, Range own,
                   double* panel) {
    constexpr int64_t n = PANEL<double>;
    for (int64_t k = 0; k < w.inputs; k += DEPTH) {
        const int64_t depth = w.inputs - k < DEPTH ? w.inputs - k : DEPTH;
        for (int64_t r = own.begin; r < own.end; ++r)
            widen_row(c.rows + r * WIDE_STRIDE, w, r, k, depth);
        for (int64_t p = 0; p * n < own.end; ++p) {
            widen_panel(panel, packed, p, k, depth);
            const int64_t first = p * n > own.begin ? p * n : own.begin, rows = own.end - first;
            const int64_t blocks = (rows + ROWS - 1) / ROWS;
            for (int64_t b = 0; b < blocks; ++b) {
                const int64_t r = first + rows * b / blocks, end = first + rows * (b + 1) / blocks;
                register_tile_of<double>(end - r, 1)(c.rows + r * WIDE_STRIDE, WIDE_STRIDE, panel,
                                                     0, depth, c.g + r * c.stride + p * n, c.stride,
                                                     k > 0, panel, 0);
            }
        }
    }
    for (int64_t r = own.begin; r < own.end; ++r) c.squares[r] = c.g[r * c.stride + r];
}

// A block's columns of `count` rows of L, at most a vector of them, from what is left of W Wᵀ.
inline void solve(const Cholesky& c, double* rows, int64_t count) {
    constexpr int64_t n = width<double>;
    double transposed[COLUMNS * n] = {};
    for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j < COLUMNS; ++j) transposed[j * n + r] = rows[r * c.stride + j];
    for (int64_t j = 0; j < COLUMNS; ++j) {
        Vec<double> sum = load(transposed + j * n);
        for (int64_t i = 0; i < j; ++i)
            sum = fma(load(transposed + i * n), broadcast(c.minus[i * COLUMNS + j]), sum);
        store<double>(transposed + j * n, sum * c.inverse[j]);
    }
    for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j < COLUMNS; ++j) rows[r * c.stride + j] = transposed[j * n + r];
}

// The block's own rows of L. A pivot p of row j that cancelled to round-off leaves a column of
// zeros: what that drops of any element (i, j) is at most √(p·gᵢᵢ) ≤ 2⁻²⁵ |wᵢ| |wⱼ|, less than half
// of a float's round-off.
inline void solve_block(const Cholesky& c, int64_t first, int64_t count) {
    constexpr int64_t n = width<double>;
    double* own = c.g + first * c.stride + first;
    fill(c.minus, 0.0, COLUMNS * COLUMNS);
    for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j <= r; ++j) c.minus[j * COLUMNS + r] = own[r * c.stride + j];
    for (int64_t j = 0; j < count; ++j) {
        double* row = c.minus + j * COLUMNS;
        const double pivot = row[j];
        const bool kept = pivot > 0x1p-50 * c.squares[first + j];
        c.inverse[j] = kept ? 1 / __builtin_sqrt(pivot) : 0;
        for (int64_t r = j; r < count; ++r) own[r * c.stride + j] = row[r] * c.inverse[j];
        for (int64_t i = 0; i < COLUMNS; i += n)
            store<double>(row + i, load(row + i) * -c.inverse[j]);
        for (int64_t r = j + 1; r < count; ++r)
            for (int64_t i = r / n * n; i < COLUMNS; i += n) {
                double* to = c.minus + r * COLUMNS + i;
                store<double>(to, fma(load(row + i), broadcast(-row[r]), load(to)));
            }
    }
}

// L from the lower triangle of W Wᵀ, block of columns by block; ends with a barrier of all threads.
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
        for (int64_t r = below.begin; r < below.end; r += width<double>) {
            const int64_t left = below.end - r, rows = left < width<double> ? left : width<double>;
            solve(c, c.g + (first + count + r) * c.stride + first, rows);
        }
    }
    worker.everyone->wait();
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
