// A network's passes over a block of rows: forward keeping slopes, and back, activations in cache.
#pragma once

#include "net/activations.h"
#include "net/active_units.h"
#include "net/packed_network.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t BLOCK_BYTES = 1 << 20;  // of activations that a block of rows keeps in cache
constexpr int64_t MOST_ROWS = 96;         // of a block

// What a pass over at most `rows` rows leaves behind: rows of layer l are stride[l] apart.
template <typename T>
struct Tape {
    int64_t* stride;
    T** post;   // h_l = φ(a_l)
    T** slope;  // φ'(a_l) as activate stores it, where the call goes back
    T* up[2];   // cotangents, by turns
    int64_t up_stride;
    T* sums;              // of transposed products
    ActiveUnits* active;  // per layer, where rows of probes pass
};

template <typename T>
Tape<T> take_tape(Arena& arena, const Network<T>& net, int64_t rows, bool slopes,
                  bool transposed = false) {
    Tape<T> tape = {arena.take<int64_t>(net.depth),
                    arena.take<T*>(net.depth),
                    arena.take<T*>(net.depth),
                    {},
                    padded<T>(net.inputs()),
                    nullptr,
                    nullptr};
    int64_t sums = 0;
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& layer = net.layers[l];
        const int64_t stride = padded<T>(layer.outputs);
        T* post = arena.take<T>(rows * stride);
        T* slope = slopes ? arena.take<T>(rows * stride) : nullptr;
        if (arena.base) tape.stride[l] = stride, tape.post[l] = post, tape.slope[l] = slope;
        tape.up_stride = tape.up_stride > stride ? tape.up_stride : stride;
        const int64_t size = transposed_size<T>(layer.outputs, layer.inputs);
        sums = sums > size ? sums : size;
    }
    for (T*& up : tape.up) up = slopes ? arena.take<T>(rows * tape.up_stride) : nullptr;
    if (transposed) tape.sums = arena.take<T>(sums);
    return tape;
}

// Rows of a block: as many as keep their activations in cache, whole register tiles.
template <typename T>
int64_t block_rows(const Network<T>& net, bool slopes) {
    Arena count = {};
    take_tape(count, net, ROWS, slopes);
    const int64_t rows = BLOCK_BYTES / (count.used / ROWS + 1) / ROWS * ROWS;
    return rows < ROWS ? ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
}

// A call's packed network, each team's tape and each thread's scratch, for blocks of `rows` rows.
template <typename T>
struct Workspace {
    PackedNetwork<T> net;
    Tape<T>* tapes;
    T** scratch;
};

template <typename T>
Workspace<T> take_workspace(Arena& arena, const Network<T>& net, int64_t rows, int64_t teams,
                            int threads, bool backward, bool transposed = false) {
    Workspace<T> work = {take_network(arena, net, backward, transposed), arena.take<Tape<T>>(teams),
                         arena.take<T*>(threads)};
    int64_t scratch_elements = scratch_size<T>(rows);
    for (int64_t l = 0; transposed && l < net.depth; ++l)
        scratch_elements += FEW_ROWS * padded<T>(net.layers[l].outputs);
    for (int64_t t = 0; t < teams; ++t) {
        const Tape<T> tape = take_tape(arena, net, rows, backward, transposed);
        if (arena.base) work.tapes[t] = tape;
    }
    for (int t = 0; t < threads; ++t) {
        T* scratch = arena.take<T>(scratch_elements);
        if (arena.base) work.scratch[t] = scratch;
    }
    return work;
}

// A pass of one team over one block of rows; `scratch` is the worker's own.
template <typename T>
struct Pass {
    const PackedNetwork<T>& net;
    const Tape<T>& tape;
    const Worker& worker;
    T* scratch;
    int64_t rows;

    Pass(const Workspace<T>& work, const Worker& worker, int64_t rows)
        : net(work.net),
          tape(work.tapes[worker.team]),
          worker(worker),
          scratch(work.scratch[worker.id]),
          rows(rows) {}

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
        if (layer.forward.data) return multiply(x, stride, layer.forward, epilogue);
        if constexpr (TRANSPOSES<T>)
            transposed_product(x, stride, rows, layer.backward, worker, tape.sums, scratch,
                               epilogue);
    }
};

// The sums of a tile become h = φ(a + b) in `post` and φ' in `slope` (not where null).
template <typename T>
void activate_row(const PackedLayer<T>& layer, const Tile<T>& tile, int64_t r, T* post, T* slope) {
    T* a = tile[r];
    for (int64_t j = 0; j < tile.padded; j += width<T>)
        store<T>(a + j, load(a + j) + load(layer.bias + tile.first + j));
    activate(layer.activation, layer.parameters, a, post, slope, tile.padded);
}

// Layers [0, layers) of the pass on x; the team's barrier follows each layer. inspect(tile) sees x
// times the first layer's W.
template <typename T, typename Inspect>
void forward_hidden(const Pass<T>& pass, const T* x, int64_t stride, int64_t layers,
                    Inspect inspect) {
    for (int64_t l = 0; l < layers; ++l) {
        const PackedLayer<T>& layer = pass.net[l];
        const Tape<T>& tape = pass.tape;
        const int64_t to = tape.stride[l];
        pass.advance(x, stride, layer, [&](const Tile<T>& tile) {
            if (l == 0) inspect(tile);
            for (int64_t r = 0; r < pass.rows; ++r) {
                const int64_t at = r * to + tile.first;
                T* slope = tape.slope[l] ? tape.slope[l] + at : nullptr;
                activate_row(layer, tile, r, tape.post[l] + at, slope);
            }
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

// The cotangent up[0] of the last layer's pre-activations goes back to the first layer's; returns
// where it then lies. The team's barrier follows each layer.
template <typename T>
const T* backward_to_first(const Pass<T>& pass) {
    const Tape<T>& tape = pass.tape;
    int64_t now = 0;
    for (int64_t l = pass.net.depth - 1; l > 0; --l) {
        const PackedLayer<T>& below = pass.net[l - 1];
        T* to = tape.up[1 - now];
        pass.multiply(tape.up[now], tape.up_stride, pass.net[l].backward, [&](const Tile<T>& tile) {
            for (int64_t r = 0; r < pass.rows; ++r) {
                T* row = to + r * tape.up_stride + tile.first;
                const T* slope = tape.slope[l - 1] + r * tape.stride[l - 1] + tile.first;
                multiply_slope<T>(below.activation, slope, tile[r], row, tile.padded);
            }
        });
        pass.worker.sync();
        now = 1 - now;
    }
    return tape.up[now];
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
