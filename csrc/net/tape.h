// What passes over a block of rows keep: activations, slopes, cotangents, each thread's scratch.
#pragma once

#include "net/active_units.h"
#include "net/kept_slopes.h"
#include "net/packed_network.h"
#include "net/spread.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t BLOCK_BYTES = 1 << 20;  // of activations that a block of rows keeps in cache
constexpr int64_t MOST_ROWS = 96;         // of a block

// What a pass over at most `rows` rows leaves behind: rows of layer l are stride[l] apart.
template <typename T>
struct Tape {
    int64_t* stride;
    int64_t* kept;  // where the slopes of layer l begin in a row that a caller keeps
    T** post;       // h_l = φ(a_l)
    T** slope;      // φ'(a_l) as activate stores it, where the call goes back
    T* up[2];       // cotangents, by turns
    int64_t up_stride;
    T* sums;              // of transposed products
    ActiveUnits* active;  // per layer, where rows of probes pass
    T* products;          // of all taps, where they spread into an image
    T** skips;            // cotangents that go around layers: at l + 1 those of layer l's output
};

// Bytes of whole cache lines, one for each of `count` slopes.
constexpr int64_t padded_bytes(int64_t count) {
    return (count + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

// Elements that layer l's slopes take in a row that a caller keeps.
template <typename T>
int64_t kept_size(const Network<T>& net, int64_t l) {
    const Activation kind = net.layers[l].activation;
    if (kind == Activation::identity) return 0;
    const int64_t size = padded<T>(side_out(net, l).size());
    if (!has_two_slopes(kind)) return size;
    return padded_bytes(size) / int64_t(sizeof(T));
}

// Elements of a row of slopes that a caller keeps from one op for another.
template <typename T>
int64_t tape_width(const Network<T>& net) {
    int64_t width = 0;
    for (int64_t l = 0; l < net.depth; ++l) width += kept_size(net, l);
    return width;
}

// Whether a later layer adds the output of layer l, −1 being the network's input.
template <typename T>
bool is_added(const Network<T>& net, int64_t l) {
    for (int64_t m = 0; m < net.depth; ++m)
        if (net.layers[m].residual == l) return true;
    return false;
}

// Elements that a row of the layer's products takes, forward and back.
template <typename T>
int64_t products_size(const Network<T>& net, int64_t l, bool slopes) {
    if (!net.layers[l].pixels) return 0;
    int64_t most = 0;
    for (int back = 0; back < (slopes ? 2 : 1); ++back) {
        const Window<T> window = window_of(net, l, back);
        const int64_t size = window.spreads() ? padded<T>(window.columns.size()) : 0;
        most = size > most ? size : most;
    }
    return most;
}

template <typename T>
Tape<T> take_tape(Arena& arena, const Network<T>& net, int64_t rows, bool slopes,
                  bool transposed = false) {
    Tape<T> tape = {arena.take<int64_t>(net.depth),
                    arena.take<int64_t>(net.depth),
                    arena.take<T*>(net.depth),
                    arena.take<T*>(net.depth),
                    {},
                    padded<T>(side_in(net, 0).size()),
                    nullptr,
                    nullptr,
                    nullptr,
                    net.is_mlp() ? nullptr : arena.take<T*>(net.depth + 1)};
    int64_t sums = 0, products = 0, kept = 0;
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& layer = net.layers[l];
        const int64_t stride = padded<T>(side_out(net, l).size()),
                      own = products_size(net, l, slopes);
        T* post = arena.take<T>(rows * stride);
        T* slope = slopes ? arena.take<T>(rows * stride) : nullptr;
        if (arena.base) {
            tape.stride[l] = stride, tape.kept[l] = kept;
            tape.post[l] = post, tape.slope[l] = slope;
        }
        kept += kept_size(net, l);
        tape.up_stride = tape.up_stride > stride ? tape.up_stride : stride;
        const int64_t size = transposed_size<T>(layer.outputs, layer.inputs);
        sums = sums > size ? sums : size;
        products = products > own ? products : own;
    }
    if (products) tape.products = arena.take<T>(rows * products);
    for (int64_t l = -1; !net.is_mlp() && l + 1 < net.depth; ++l) {
        const Side side = l < 0 ? side_in(net, 0) : side_out(net, l);
        T* skip =
            slopes && is_added(net, l) ? arena.take<T>(rows * padded<T>(side.size())) : nullptr;
        if (arena.base) tape.skips[l + 1] = skip;
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
    const int64_t bytes = count.used / ROWS + 1;
    if (!net.is_mlp()) {  // pixels fill the register tiles too
        const int64_t fit = 2 * BLOCK_BYTES / bytes;
        return fit < 1 ? 1 : fit > MOST_ROWS ? MOST_ROWS : fit;
    }
    const int64_t rows = BLOCK_BYTES / bytes / ROWS * ROWS;
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
    for (int64_t l = 0; l < net.depth; ++l)
        for (int back = 0; net.layers[l].pixels && back < (backward ? 2 : 1); ++back) {
            const int64_t size = window_scratch(window_of(net, l, back), rows);
            if (size > scratch_elements) scratch_elements = size;
        }
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

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
