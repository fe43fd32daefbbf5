// K rows per input beside one pass: rows (b, k) go through products, each multiplied by the slopes
// of input b.
#pragma once

#include "net/passes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Rows that pass together: as many as keep two layers in cache, whole register tiles.
template <typename T>
int64_t probe_rows(const Network<T>& net) {
    int64_t widest = net.inputs();
    for (int64_t l = 0; l < net.depth; ++l)
        if (net.layers[l].outputs > widest) widest = net.layers[l].outputs;
    const int64_t bytes = 2 * padded<T>(widest) * int64_t(sizeof(T));
    const int64_t rows = BLOCK_BYTES / bytes / ROWS * ROWS;
    return rows < ROWS ? ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
}

// Inputs whose slopes a block keeps: enough for a pass of their own to read weights seldom, and for
// one of rows.
constexpr int64_t probed_inputs(int64_t rows, int64_t K) {
    return rows / K > MOST_ROWS / 2 ? rows / K : MOST_ROWS / 2;
}

// body(range) over [0, count) in pieces of `rows`, whole register tiles but for the last, until the
// team stops.
template <typename Body>
void for_each_piece(const Worker& worker, int64_t count, int64_t rows, Body body) {
    for (int64_t r = 0; r < count; r += rows) {
        worker.check_stop();
        worker.sync();
        if (worker.stopped()) return;
        body(Range{r, count - r < rows ? count : r + rows});
    }
}

// The same, into a row of which relu keeps what its slopes do.
template <typename T>
void mask(const Pass<T>& pass, int64_t l, int64_t b, int64_t first, const T* t, T* row,
          int64_t count) {
    if (pass.tape.active[l].on())
        gather(pass.tape.active[l], b, first, t, row, count);
    else
        multiply_slope_of(pass, l, b, first, t, row + first, count);
}

// A whole row of `width` elements, masked.
template <typename T>
void mask_row(const Pass<T>& pass, int64_t l, int64_t b, const T* from, T* row, int64_t width) {
    const int64_t padded = panels_of<T>(width) * PANEL<T>;
    if (pass.tape.active[l].on()) return mask(pass, l, b, 0, from, row, padded);
    copy_padded(row, from, width);
    mask(pass, l, b, 0, row, row, padded);
}

// Rows masked by layer m (none: −1) times panels `own` of w.
template <typename T, typename Epilogue>
void multiply_masked(const Pass<T>& pass, const ProbeRows& at, Rows<const T> from, int64_t m,
                     const Packed<T>& w, Range own, Epilogue epilogue) {
    if (m >= 0 && pass.tape.active[m].on())
        product_over_active(pass.tape.active[m], at.first, at.K, from.data, from.stride, pass.rows,
                            w, own.begin, own.end, pass.scratch, epilogue);
    else
        pass.multiply(from.data, from.stride, w, own, epilogue);
}

inline void set_flag(bool* flag) { __atomic_store_n(flag, true, __ATOMIC_RELAXED); }

// check(r) for every row of which the first product is not finite. Where a row that entered it
// holds NaN or infinity, none of its products is finite: one is enough to tell.
template <typename T, typename Check>
void each_nonfinite_row(const Tile<T>& tile, int64_t rows, Check check) {
    if (tile.first || !tile.count) return;
    for (int64_t r = 0; r < rows; ++r)
        if (!(tile[r][0] - tile[r][0] == 0)) check(r);
}

// up[to] ← layer l's slopes times (from · wᵀ), `from` masked by layer m; inspect(tile) sees the
// product. Ends with the team's barrier.
template <typename T, typename Inspect>
void hidden_product(const Pass<T>& pass, const ProbeRows& at, Rows<const T> from, int64_t m,
                    const Packed<T>& w, int64_t l, int64_t to, Inspect inspect) {
    const Tape<T>& tape = pass.tape;
    const Range own = share(w.panels(), pass.worker.rank, pass.worker.ranks);
    multiply_masked(pass, at, from, m, w, own, [&](const Tile<T>& tile) {
        inspect(tile);
        at.each({0, pass.rows}, [&](int64_t r, int64_t b, int64_t) VAEFAST_FLAT {
            mask(pass, l, b, tile.first, tile[r], tape.up[to] + r * tape.up_stride, tile.padded);
        });
    });
    pass.worker.sync();
}

// Pack nothing that a pass forward would take.
template <typename T>
void leave_forward(const PackedNetwork<T>& net) {
    for (int64_t l = 0; l < net.depth; ++l)
        net.layers[l].forward.data = net.layers[l].window_forward.weights = nullptr;
}

// What a block of inputs keeps in hidden layers where K rows each pass.
template <typename T>
void take_active(Arena& arena, const Workspace<T>& work, const Network<T>& net, int64_t inputs,
                 int64_t K, int64_t teams) {
    bool* refused = arena.take<bool>(1);
    if (arena.base) *refused = false;
    for (int64_t t = 0; t < teams; ++t) {
        ActiveUnits* active = arena.take<ActiveUnits>(net.depth);
        if (arena.base) work.tapes[t].active = active;
        for (int64_t l = 0; l < net.depth; ++l) {
            const bool skip = l + 1 < net.depth && skips(net.layers[l], K);
            const ActiveUnits own = skip ? take_active(arena, net.layers[l], inputs, refused)
                                         : ActiveUnits{nullptr, nullptr, 0, 0, refused};
            if (arena.base) active[l] = own;
        }
    }
}

// Refuse to skip where weights are not finite: a slope of zero does not make them zero, be it
// before or after the product. Before ends with a barrier of all threads.
template <typename T>
void check_weights(const Workspace<T>& work, const Packed<T>& w, const Worker& worker) {
    const ActiveUnits* active = work.tapes[worker.team].active;
    bool skip = false;
    for (int64_t l = 0; l < work.net.depth; ++l) skip = skip || active[l].list;
    const Range own = share(w.panels(), worker.id, worker.threads);
    if (skip && w.data && !all_finite(w.panel(own.begin), own.size() * w.depth * PANEL<T>))
        __atomic_store_n(active->refused, true, __ATOMIC_RELAXED);
}

// Flag in `nonfinite` which of the pass's inputs x hold NaN or infinity.
template <typename T>
void check_inputs(const Pass<T>& pass, Rows<const T> x, int64_t features, bool* nonfinite) {
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t b = own.begin; b < own.end; ++b)
        if (!all_finite(x[b], features)) set_flag(nonfinite + b);
}

// Layers [0, layers) of the pass on inputs x, their slopes, and `nonfinite` where one holds NaN or
// infinity; ends with the team's barrier.
template <typename T>
void pass_inputs(const Pass<T>& pass, Rows<const T> x, int64_t layers, bool* nonfinite) {
    const Packed<T>& first = pass.net[0].forward;
    const auto check = [&](int64_t b) {
        if (!all_finite(x[b], first.depth)) set_flag(nonfinite + b);
    };
    if (!(layers && first.outputs)) check_inputs(pass, x, first.depth, nonfinite);
    forward_hidden(pass, x.data, x.stride, layers,
                   [&](const Tile<T>& tile) { each_nonfinite_row(tile, pass.rows, check); });
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t l = 0; l < pass.net.depth; ++l)
        for (int64_t b = own.begin; pass.tape.active[l].on() && b < own.end; ++b)
            list_active(pass.tape.active[l], b, pass.tape.slope[l] + b * pass.tape.stride[l]);
    pass.worker.sync();
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
