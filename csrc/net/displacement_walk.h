// Rows pulled back through relaxed activations: what bounds of a network's displacement are made
// of.
#pragma once

#include "net/packed_network.h"
#include "net/relaxations.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t PULLED = 4 * ROWS;  // rows that pass a layer together

inline bool pairs(const Layer<double>& layer) { return layer.activation == Activation::maxmin; }

inline int64_t units_of(const Layer<double>& layer) {
    if (layer.activation == Activation::identity) return 0;
    return pairs(layer) ? layer.outputs / 2 : layer.outputs;
}

// What a thread works with. Rows are `widest` apart, those of all units together `stride`.
struct WalkSpace {
    double *slope, *shift, *error;  // [ROWS, all units] of the block's rows, layer after layer
    // of the block's rows [ROWS, widest]: the range of a layer's output, how far it moves with all
    // signs lost, what rounding takes off it; and those of the next layer
    double *low, *high, *reach, *loss, *next[4];
    double *anchor, *lo, *hi;  // of one row's units
    double *rows, *pulled;     // [PULLED, widest], cotangents
    double* scratch;           // of products
    // [m, widest] at the input, [m, `stride`] of units that deviate
    double *root = nullptr, *errors = nullptr;
    double* own = nullptr;        // [m], the shift's share
    int32_t* deviates = nullptr;  // units with an error, layer after layer
    int64_t* starts = nullptr;    // where each layer's start among them
    Packed<double> packed_root = {};
};

// A call of net_displacement_bound on its way.
struct DisplacementWalk {
    const NetDisplacementBound& call;
    int64_t widest, stride;
    Packed<double>* forward = nullptr;   // W of every layer but the first
    Packed<double>* absolute = nullptr;  // |W|
    Packed<double>* backward = nullptr;  // Wᵀ of those between the first and the last, and F
    int64_t* first = nullptr;            // where each layer's units start in a row of relaxations
    WalkSpace* spaces = nullptr;         // of each thread

    const Layer<double>& layer(int64_t l) const { return call.net.layers[l]; }
    int64_t depth() const { return call.net.depth; }
    Relaxed relaxed(const WalkSpace& space, int64_t l, int64_t row) const {
        const int64_t at = row * stride + first[l];
        return {space.slope + at, space.shift + at, space.error + at};
    }
};

inline int64_t padded_units(const Layer<double>& layer) {
    return panels_of<double>(units_of(layer)) * PANEL<double>;
}

// What a row's dot products with shifts and errors add up to.
struct Moves {
    double middle = 0, half = 0;
    void operator+=(const Moves& other) { middle += other.middle, half += other.half; }
};

// A row of cotangents of layer l's output to those of its pre-activations; `to` may be `from`.
inline Moves through(const Layer<double>& layer, const Relaxed& by, const double* from,
                     double* to) {
    Moves moves;
    const int64_t n = layer.outputs;
    if (layer.activation == Activation::identity) {
        if (to != from) copy(to, from, n);
        return moves;
    }
    if (pairs(layer)) {
        for (int64_t p = 0; p < n / 2; ++p) {
            const double larger = from[2 * p], smaller = from[2 * p + 1], unit = larger - smaller;
            moves.middle += unit * by.shift[p];
            moves.half += __builtin_fabs(unit) * by.error[p];
            to[2 * p] = smaller + unit * by.slope[p];
            to[2 * p + 1] = larger - unit * by.slope[p];
        }
        return moves;
    }
    Doubles middle = {}, half = {};
    for_each_vector<double>(n, [&](int64_t j, int64_t count) VAEFAST_FLAT {
        const Doubles v = load(from + j, count);
        middle = fma(v, load(by.shift + j), middle);
        half = fma(absolute<double>(v), load(by.error + j), half);
        store<double>(to + j, v * load(by.slope + j), count);
    });
    return {sum_lanes<double>({middle}), sum_lanes<double>({half})};
}

// Row u of a layer's weights as that of a unit: of a pair their difference, into `to`.
inline const double* unit_row(const Layer<double>& layer, int64_t u, double* to) {
    if (!pairs(layer)) return layer.weight + u * layer.row;
    const double *larger = layer.weight + 2 * u * layer.row, *smaller = larger + layer.row;
    for (int64_t j = 0; j < layer.inputs; ++j) to[j] = larger[j] - smaller[j];
    return to;
}

// rows [count, depth] times packed weights into `to`, `ldt` apart.
inline void multiply_rows(const double* rows, int64_t ldx, int64_t count, const Packed<double>& by,
                          double* to, int64_t ldt, double* scratch) {
    product(rows, ldx, count, by, 0, by.panels(), scratch, [&](const Tile<double>& tile) {
        for (int64_t r = 0; r < count; ++r) copy(to + r * ldt + tile.first, tile[r], tile.count);
    });
}

// squares[r] ← the squared norm of row r of rows [count, depth] times packed weights.
inline void square_norms(const double* rows, int64_t ldx, int64_t count, const Packed<double>& by,
                         double* squares, double* scratch) {
    Doubles sums[PULLED] = {};
    product(rows, ldx, count, by, 0, by.panels(), scratch, [&](const Tile<double>& tile) {
        for (int64_t r = 0; r < count; ++r)
            for_each_vector<double>(tile.count, [&](int64_t j, int64_t n) VAEFAST_FLAT {
                const Doubles v = load(tile[r] + j, n);
                sums[r] = fma(v, v, sums[r]);
            });
    });
    for (int64_t r = 0; r < count; ++r) squares[r] = sum_lanes<double>({sums[r]});
}

// Σ |xᵀw| over M columns of x and a panel of columns of w, both [depth, ·] with rows `ld` apart.
template <int M>
Doubles magnitudes(const double* x, const double* w, int64_t ld, int64_t depth) {
    Doubles sums[M][2] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Doubles low = load(w + k * ld), high = load(w + k * ld + width<double>);
        in_register(low), in_register(high);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const Doubles xk = broadcast(x[k * ld + m]);
            sums[m][0] = fma(xk, low, sums[m][0]);
            sums[m][1] = fma(xk, high, sums[m][1]);
        }
    }
    Doubles total = {};
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
        total += absolute<double>(sums[m][0]) + absolute<double>(sums[m][1]);
    return total;
}

template <int M>
Doubles magnitudes_of(int64_t columns, const double* x, const double* w, int64_t ld,
                      int64_t depth) {
    if constexpr (M > 1)
        if (columns < M) return magnitudes_of<M - 1>(columns, x, w, ld, depth);
    return magnitudes<M>(x, w, ld, depth);
}

// No more threads than rows: one works on a row.
inline Call of_rows(const Call& how, int64_t B) {
    return {B < how.threads ? int(B < 1 ? 1 : B) : how.threads, how.interrupted};
}

// √(Σ |MᵀM|) of M [rows, columns], its rows `ld` apart and zeros up to whole panels.
inline double remainder(const double* M, int64_t ld, int64_t rows, int64_t columns) {
    constexpr int64_t n = PANEL<double>;
    Doubles own = {}, others = {};
    for (int64_t p = 0; p < columns; p += n) {
        for (int64_t c = p; c < p + n; c += ROWS)
            own += magnitudes_of<ROWS>(p + n - c < ROWS ? p + n - c : ROWS, M + c, M + p, ld, rows);
        for (int64_t c = p + n; c < columns; c += ROWS)
            others += magnitudes_of<ROWS>(columns - c < ROWS ? columns - c : ROWS, M + c, M + p, ld,
                                          rows);
    }
    return __builtin_sqrt(sum_lanes<double>({own + others + others}));
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
