// A network's passes over a block of rows: forward keeping slopes, and back, activations in cache.
#pragma once

#include "net/activations.h"
#include "net/spread.h"
#include "net/tape.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Rows from `first` on; none where there are none.
template <typename T>
Rows<T> rows_from(const Rows<T>& rows, int64_t first) {
    return {rows.data ? rows[first] : nullptr, rows.stride};
}

// A pass of one team over one block of rows; `scratch` is the worker's own.
template <typename T>
struct Pass {
    const PackedNetwork<T>& net;
    const Tape<T>& tape;
    const Worker& worker;
    T* scratch;
    int64_t rows;
    Rows<T> kept;  // slopes that the caller keeps, of the tape's inputs; null: the tape's own
    mutable Rows<const T> input = {};  // of forward_hidden, where a layer adds it

    Pass(const Workspace<T>& work, const Worker& worker, int64_t rows, Rows<T> kept = {})
        : net(work.net),
          tape(work.tapes[worker.team]),
          worker(worker),
          scratch(work.scratch[worker.id]),
          rows(rows),
          kept(kept) {}

    // Layer l's slopes at input b of the tape from column `first` on.
    SlopesAt<T> slopes(int64_t l, int64_t b, int64_t first) const {
        if (!kept.data)
            return {tape.slope[l] ? tape.slope[l] + b * tape.stride[l] + first : nullptr, nullptr};
        const Activation kind = net[l].activation;
        if (kind == Activation::identity) return {nullptr, nullptr};
        T* row = kept[b] + tape.kept[l];
        if (has_two_slopes(kind)) return {nullptr, reinterpret_cast<int8_t*>(row) + first};
        return {row + first, nullptr};
    }

    template <typename Epilogue>
    void multiply(const T* x, int64_t stride, const Packed<T>& w, Epilogue epilogue) const {
        multiply(x, stride, w, share(w.panels(), worker.rank, worker.ranks), epilogue);
    }
    template <typename Epilogue>
    void multiply(const T* x, int64_t stride, const Packed<T>& w, Range own,
                  Epilogue epilogue) const {
        if (worker.ranks > 1)  // most of x lies in the caches of mates
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t k = 0; k < w.depth; k += 2 * CACHE_LINE / int64_t(sizeof(T)))
                    fetch<2 * CACHE_LINE>(x + r * stride + k);
        product(x, stride, rows, w, own.begin, own.end, scratch, epilogue);
    }

    // x times the layer's W.
    template <typename Epilogue>
    void advance(const T* x, int64_t stride, const PackedLayer<T>& layer, Epilogue epilogue) const {
        if (layer.has_pixels()) return apply(layer.window_forward, x, stride, epilogue);
        if (layer.forward.data) return multiply(x, stride, layer.forward, epilogue);
        if constexpr (TRANSPOSES<T>)
            transposed_product(x, stride, rows, layer.backward, worker, tape.sums, scratch,
                               epilogue);
    }

    // x times the layer's Wᵀ.
    template <typename Epilogue>
    void go_back(const T* x, int64_t stride, const PackedLayer<T>& layer, Epilogue epilogue) const {
        if (layer.has_pixels()) return apply(layer.window_back, x, stride, epilogue);
        multiply(x, stride, layer.backward, epilogue);
    }

    template <typename Epilogue>
    void apply(const Window<T>& window, const T* x, int64_t stride, Epilogue epilogue) const {
        if (window.spreads())
            return spread_product(window, x, stride, rows, worker, tape.products, scratch,
                                  epilogue);
        window_product(window, x, stride, rows, worker.rank, worker.ranks, scratch, epilogue);
    }
};

// to[j] += what lies at place first + j, from a row that lies as `other`.
template <typename T>
void add_places(const Side& side, int64_t first, int64_t count, const Side& other, const T* from,
                T* to) {
    if (side.lies_as(other))
        return for_each_vector<T>(count, [=](int64_t j, int64_t n) VAEFAST_FLAT {
            store<T>(to + j, load(to + j, n) + load(from + first + j, n), n);
        });
    for (int64_t j = 0; j < count; ++j) {
        const int64_t f = side.feature(first + j);
        if (f >= 0) to[j] += from[other.place(f)];
    }
}

// to ← φ' of layer l at input b times the `count` columns at t, from column `first` on.
template <typename T>
void multiply_slope_of(const Pass<T>& pass, int64_t l, int64_t b, int64_t first, const T* t, T* to,
                       int64_t count) {
    const PackedLayer<T>& layer = pass.net[l];
    const SlopesAt<T> at = pass.slopes(l, b, first);
    if (at.bytes)
        multiply_two_slopes(layer.activation, layer.parameters, at.bytes, t, to, count);
    else
        multiply_slope<T>(layer.activation, at.numbers, t, to, count);
}

// The sums of a tile become h = φ(a + b + a residual) in `post`; φ' goes to `slopes`.
template <typename T>
void activate_row(const Pass<T>& pass, int64_t l, const Tile<T>& tile, int64_t r, T* post,
                  SlopesAt<T> slopes) {
    const PackedLayer<T>& layer = pass.net[l];
    const int64_t k = layer.residual;
    T* a = tile[r];
    for (int64_t j = 0; j < tile.padded; j += width<T>)
        store<T>(a + j, load(a + j) + load(layer.bias + tile.first + j));
    if (k != NO_RESIDUAL) {
        const T* from = k < 0 ? pass.input[r] : pass.tape.post[k] + r * pass.tape.stride[k];
        add_places(layer.out, tile.first, tile.count, pass.net.side(k), from, a);
    }
    if (slopes.bytes)
        activate_two(layer.activation, layer.parameters, a, post, slopes.bytes, tile.padded);
    else
        activate(layer.activation, layer.parameters, a, post, slopes.numbers, tile.padded);
}
template <typename T>
void activate_row(const Pass<T>& pass, int64_t l, const Tile<T>& tile, int64_t r, T* post,
                  T* slope) {
    activate_row(pass, l, tile, r, post, SlopesAt<T>{slope, nullptr});
}

// Layers [0, layers) of the pass on x; the team's barrier follows each layer. inspect(tile) sees x
// times the first layer's W.
template <typename T, typename Inspect>
void forward_hidden(const Pass<T>& pass, const T* x, int64_t stride, int64_t layers,
                    Inspect inspect) {
    pass.input = {x, stride};
    for (int64_t l = 0; l < layers; ++l) {
        const PackedLayer<T>& layer = pass.net[l];
        const Tape<T>& tape = pass.tape;
        const int64_t to = tape.stride[l];
        pass.advance(x, stride, layer, [&](const Tile<T>& tile) {
            if (l == 0) inspect(tile);
            for (int64_t r = 0; r < pass.rows; ++r)
                activate_row(pass, l, tile, r, tape.post[l] + r * to + tile.first,
                             pass.slopes(l, r, tile.first));
        });
        pass.worker.sync();
        x = tape.post[l];
        stride = to;
    }
}
template <typename T>
void forward_hidden(const Pass<T>& pass, const T* x, int64_t stride, int64_t layers) {
    forward_hidden(pass, x, stride, layers, [](const Tile<T>&) {});
}

// The cotangents `up` of layer l's pre-activations also go to the output that it adds, if any; ends
// with the team's barrier where they do.
template <typename T>
void keep_skip(const Pass<T>& pass, int64_t l, const T* up) {
    const int64_t k = pass.net[l].residual;
    if (k == NO_RESIDUAL) return;
    bool first = true;
    for (int64_t m = l + 1; m < pass.net.depth; ++m) first = first && pass.net[m].residual != k;
    const Side side = pass.net.side(k);
    const int64_t stride = padded<T>(side.size());
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end; ++r) {
        T* to = pass.tape.skips[k + 1] + r * stride;
        if (first) fill(to, T(0), stride);
        add_places(side, 0, side.size(), pass.net[l].out, up + r * pass.tape.up_stride, to);
    }
    pass.worker.sync();
}

// Add to a tile of cotangents of layer l's output (−1: of the input) those that went around.
template <typename T>
void add_skip(const Pass<T>& pass, int64_t l, const Tile<T>& tile) {
    const T* skip = pass.tape.skips ? pass.tape.skips[l + 1] : nullptr;
    if (!skip) return;
    const Side side = pass.net.side(l);
    for (int64_t r = 0; r < pass.rows; ++r)
        add_places(side, tile.first, tile.count, side, skip + r * padded<T>(side.size()), tile[r]);
}

// Rows (b, k) in order, of which the first is b·K + k = `first`; b counts the tape's inputs.
struct ProbeRows {
    int64_t first, K;

    int64_t input(int64_t r) const { return (first + r) / K; }
    // body(r, b, k) for rows `own`.
    template <typename Body>
    VAEFAST_INLINE void each(Range own, Body body) const {
        int64_t b = (first + own.begin) / K, k = (first + own.begin) % K;
        for (int64_t r = own.begin; r < own.end; ++r) {
            body(r, b, k);
            if (++k == K) k = 0, ++b;
        }
    }
};
constexpr ProbeRows ONE_EACH = {0, 1};  // rows are the tape's inputs

// The cotangent up[0] of the last layer's pre-activations goes back to the first layer's; returns
// where it then lies. The team's barrier follows each layer.
template <typename T>
const T* backward_to_first(const Pass<T>& pass, const ProbeRows& at = ONE_EACH) {
    const Tape<T>& tape = pass.tape;
    int64_t now = 0;
    for (int64_t l = pass.net.depth - 1; l > 0; --l) {
        T* to = tape.up[1 - now];
        keep_skip(pass, l, tape.up[now]);
        pass.go_back(tape.up[now], tape.up_stride, pass.net[l], [&](const Tile<T>& tile) {
            add_skip(pass, l - 1, tile);
            at.each({0, pass.rows}, [&](int64_t r, int64_t b, int64_t) VAEFAST_FLAT {
                T* row = to + r * tape.up_stride + tile.first;
                multiply_slope_of(pass, l - 1, b, tile.first, tile[r], row, tile.padded);
            });
        });
        pass.worker.sync();
        now = 1 - now;
    }
    keep_skip(pass, 0, tape.up[now]);
    return tape.up[now];
}

// The same to the network's input: epilogue(tile) gets its cotangents.
template <typename T, typename Epilogue>
void backward_to_input(const Pass<T>& pass, const ProbeRows& at, Epilogue epilogue) {
    const T* up = backward_to_first(pass, at);
    pass.go_back(up, pass.tape.up_stride, pass.net[0], [&](const Tile<T>& tile) {
        add_skip(pass, -1, tile);
        epilogue(tile);
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
