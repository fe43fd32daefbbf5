// The triangular factor of a wide matrix: A = L Q by blocked Householder reflections of its rows.
#pragma once

#include "net/passes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t REFLECTIONS = 32;  // of a block

// A [H, D], D ≥ H, whose lower triangle becomes L. Reflections act on rows from the right: those
// of a block together are I − Vᵀ T V.
struct Lq {
    double* a;
    int64_t H, D, stride;
    double* v;                  // [REFLECTIONS, stride], rows start at the block's first column
    double* t;                  // [REFLECTIONS, REFLECTIONS], upper triangular
    Packed<double> across, up;  // V, Vᵀ
    double* coefficients;       // [H, REFLECTIONS]: −A Vᵀ T
};

inline Lq take_lq(Arena& arena, int64_t H, int64_t D) {
    const int64_t n = REFLECTIONS, stride = padded<double>(D);
    double* a = arena.take<double>(H * stride);
    double* v = arena.take<double>(n * stride);
    double* t = arena.take<double>(n * n);
    double* across = arena.take<double>(packed_size<double>(n, D));
    double* up = arena.take<double>(packed_size<double>(D, n));
    return {
        a, H, D, stride, v, t, {across, n, D, false}, {up, D, n, false}, arena.take<double>(H * n)};
}

inline double dot(const double* a, const double* b, int64_t count) {
    Vec<double> sums[4] = {};
    int64_t j = 0;
    for (; j + 4 * width<double> <= count; j += 4 * width<double>)
        for (int64_t i = 0; i < 4; ++i) {
            const int64_t at = j + i * width<double>;
            sums[i] = fma(load(a + at), load(b + at), sums[i]);
        }
    for_each_vector<double>(count - j, [&](int64_t i, int64_t n) VAEFAST_FLAT {
        sums[0] = fma(load(a + j + i, n), load(b + j + i, n), sums[0]);
    });
    return sum_lanes<double>({sums[0], sums[1], sums[2], sums[3]});
}

// y ← y + c·x
inline void add_multiple(double c, const double* x, double* y, int64_t count) {
    for_each_vector<double>(count, [=](int64_t j, int64_t n) VAEFAST_FLAT {
        store<double>(y + j, fma(broadcast(c), load(x + j, n), load(y + j, n)), n);
    });
}

// v with v₀ = 1 and the factor c: (I − c vvᵀ) maps x to (x₀, 0 … 0), x₀ as it is left here.
inline double reflection(double* x, double* v, int64_t count) {
    const double square = dot(x + 1, x + 1, count - 1), x0 = x[0];
    v[0] = 1;
    for (int64_t j = 1; j < count; ++j) v[j] = 0;
    if (square == 0) return 0;
    const double norm = __builtin_sqrt(x0 * x0 + square), end = x0 > 0 ? -norm : norm;
    for (int64_t j = 1; j < count; ++j) v[j] = x[j] / (x0 - end);
    x[0] = end;
    return (end - x0) / end;
}

// Reflect rows [first, first + rows) in turn, each by all before it; leaves V and T.
inline void reflect_block(const Lq& lq, int64_t first, int64_t rows) {
    const int64_t count = lq.D - first;
    for (int64_t r = 0; r < rows; ++r) {
        double* row = lq.a + (first + r) * lq.stride + first;
        double* v = lq.v + r * lq.stride;
        for (int64_t q = 0; q < r; ++q) {
            const double* other = lq.v + q * lq.stride;
            const double c = lq.t[q * REFLECTIONS + q] * dot(other, row, count);
            add_multiple(-c, other, row, count);
        }
        fill(v, 0.0, r);
        const double factor = reflection(row + r, v + r, count - r);
        double with[REFLECTIONS];
        for (int64_t q = 0; q < r; ++q) with[q] = -factor * dot(lq.v + q * lq.stride, v, count);
        for (int64_t p = 0; p < REFLECTIONS; ++p) {
            double sum = 0;
            for (int64_t q = p; q < r; ++q) sum += lq.t[p * REFLECTIONS + q] * with[q];
            lq.t[p * REFLECTIONS + r] = p == r ? factor : sum;
        }
    }
}

// The block's reflections on rows `own` below it, as many at a time as the scratch holds.
inline void reflect_below(const Lq& lq, int64_t first, Range own, double* scratch) {
    const int64_t n = REFLECTIONS;
    for (int64_t r = own.begin; r < own.end; r += MOST_ROWS) {
        const int64_t rows = own.end - r < MOST_ROWS ? own.end - r : MOST_ROWS;
        double *a = lq.a + r * lq.stride + first, *c = lq.coefficients + r * n;
        product(a, lq.stride, rows, lq.across, 0, lq.across.panels(), scratch,
                [&](const Tile<double>& tile) {
                    for (int64_t i = 0; i < rows; ++i)
                        std::memcpy(c + i * n + tile.first, tile[i], tile.count * sizeof(double));
                });
        for (int64_t i = 0; i < rows; ++i) {
            double sums[REFLECTIONS] = {};
            for (int64_t p = 0; p < n; ++p) add_multiple(-c[i * n + p], lq.t + p * n, sums, n);
            std::memcpy(c + i * n, sums, sizeof sums);
        }
        product(c, n, rows, lq.up, 0, lq.up.panels(), scratch, [&](const Tile<double>& tile) {
            for (int64_t i = 0; i < rows; ++i)
                add_multiple(1, tile[i], a + i * lq.stride + tile.first, tile.count);
        });
    }
}

// L in place, by all threads; scratch is the worker's own, of MOST_ROWS rows. Ends with a barrier
// of all threads.
inline void factorize(Lq lq, const Worker& worker, double* scratch) {
    for (int64_t first = 0; first < lq.H; first += REFLECTIONS) {
        const int64_t below = first + REFLECTIONS;
        worker.everyone->wait();
        if (worker.id == 0) reflect_block(lq, first, below < lq.H ? REFLECTIONS : lq.H - first);
        worker.everyone->wait();
        if (below >= lq.H) return;
        lq.across.depth = lq.up.outputs = lq.D - first;
        const Range across = share(lq.across.panels(), worker.id, worker.threads);
        pack(lq.across, lq.v, lq.stride, 1, across.begin, across.end);
        const Range up = share(lq.up.panels(), worker.id, worker.threads);
        pack(lq.up, lq.v, 1, lq.stride, up.begin, up.end);
        worker.everyone->wait();
        const Range own = share(lq.H - below, worker.id, worker.threads);
        reflect_below(lq, first, {below + own.begin, below + own.end}, scratch);
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
