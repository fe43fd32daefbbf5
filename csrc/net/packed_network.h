// A network's weights in panels, packed once per call or once for several.
#pragma once

#include "net/rows.h"
#include "net/transposed_product.h"
#include "net/window.h"
#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
struct PackedLayer {
    Packed<T> forward;   // W; without data where few rows turn Wᵀ instead
    Packed<T> backward;  // Wᵀ, where the call goes back
    T* bias;             // as the output lies, padded
    Activation activation;
    Parameters<T> parameters;
    int64_t residual;
    Side out;                               // how the output lies
    Window<T> window_forward, window_back;  // of a layer with pixels, else without a layer

    bool has_pixels() const { return window_forward.layer; }
};

// A network packed once per call, or once for several.
template <typename T>
struct PackedNetwork {
    PackedLayer<T>* layers;
    int64_t depth;
    Side in;  // how the input lies

    // How the output of layer l lies, −1 for the input.
    const Side& side(int64_t l) const { return l < 0 ? in : layers[l].out; }
    const PackedLayer<T>& operator[](int64_t l) const { return layers[l]; }
    const PackedLayer<T>& last() const { return layers[depth - 1]; }
};

template <typename T>
int64_t weight_bytes(const Network<T>& net) {
    int64_t weights = 0;
    for (int64_t l = 0; l < net.depth; ++l)
        weights += net.layers[l].pixels ? window_of(net, l, false).packed()
                                        : net.layers[l].outputs * net.layers[l].inputs;
    return weights * int64_t(sizeof(T));
}

// Whether so few rows go forward through Wᵀ: both copies together would leave the caches.
template <typename T>
bool multiplies_transposed(const Network<T>& net, int64_t rows, int threads) {
    for (int64_t l = 0; l < net.depth; ++l)
        if (!net.layers[l].inputs) return false;
    return net.is_mlp() && TRANSPOSES<T> && rows <= FEW_ROWS &&
           2 * weight_bytes(net) > threads * OWN_CACHE;
}

// Rows that pay a thread for reading all weights by itself: one where these stay in its cache, or
// where every pixel needs them.
template <typename T>
int64_t enough_rows(const Network<T>& net) {
    return net.is_mlp() && 2 * weight_bytes(net) > 2 * OWN_CACHE ? 16 : 1;
}

// A layer's weights in both directions: panels, or those of its windows.
template <typename T>
struct Panels {
    Packed<T> forward, backward;
    T *window_forward, *window_back;
};

// Room for the directions that are wanted.
template <typename T>
Panels<T> take_panels(Arena& arena, const Network<T>& net, int64_t l, int directions) {
    const bool ahead = directions & forward_panels, back = directions & backward_panels;
    if (net.layers[l].pixels) {
        T* forward = ahead ? arena.take<T>(window_of(net, l, false).packed()) : nullptr;
        return {{}, {}, forward, back ? arena.take<T>(window_of(net, l, true).packed()) : nullptr};
    }
    const Side from = side_in(net, l), to = side_out(net, l);
    const int64_t in = from.plain() ? from.features() : from.size();
    const int64_t out = to.plain() ? to.features() : to.size();
    T* forward = ahead ? arena.take<T>(packed_size<T>(out, in)) : nullptr;
    T* backward = back ? arena.take<T>(packed_size<T>(in, out)) : nullptr;
    return {{forward, out, in, false}, {backward, in, out, false}, nullptr, nullptr};
}

// The panels of `given` that the pack holds, in place of the call's own.
template <typename T>
void take_given(Panels<T>& own, const Panels<T>& given, int directions) {
    if (directions & forward_panels) {
        own.forward = given.forward.as_ready();
        own.window_forward = given.window_forward;
    }
    if (directions & backward_panels) {
        own.backward = given.backward.as_ready();
        own.window_back = given.window_back;
    }
}

template <typename T>
PackedNetwork<T> take_network(Arena& arena, const Network<T>& net, bool backward, bool transposed) {
    PackedNetwork<T> to = {arena.take<PackedLayer<T>>(net.depth), net.depth, side_in(net, 0)};
    const int wanted = (transposed ? 0 : forward_panels) | (backward ? backward_panels : 0);
    Arena pack = {net.packed, 0};
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& from = net.layers[l];
        const Panels<T> given = take_panels(pack, net, l, forward_panels | backward_panels);
        Panels<T> own = take_panels(arena, net, l, wanted & ~net.directions);
        take_given(own, given, wanted & net.directions);
        Window<T> windows[2] = {};
        for (int back = 0; from.pixels && back < (wanted & backward_panels ? 2 : 1); ++back) {
            windows[back] = take_window(arena, net, l, back);
            windows[back].weights = back ? own.window_back : own.window_forward;
            windows[back].ready = net.directions & (back ? backward_panels : forward_panels);
        }
        const Side out = side_out(net, l);
        T* bias = arena.take<T>(padded<T>(out.size()));
        if (to.layers)
            to.layers[l] = {own.forward,     own.backward,  bias, from.activation,
                            from.parameters, from.residual, out,  windows[0],
                            windows[1]};
    }
    return to;
}

// This worker's share of a matrix whose element [j, k] lies at w[j·row + k·column].
template <typename T>
void pack_share(const Packed<T>& to, const T* w, int64_t row, int64_t column,
                const Worker& worker) {
    if (!to.data || to.ready) return;
    const Range own = share(to.panels(), worker.id, worker.threads);
    pack(to, w, row, column, own.begin, own.end);
}

// The same where outputs and inputs lie as `out` and `in`.
template <typename T>
void pack_share(const Packed<T>& to, const T* w, int64_t row, int64_t column, const Side& out,
                const Side& in, const Worker& worker) {
    if (out.plain() && in.plain()) return pack_share(to, w, row, column, worker);
    if (!to.data || to.ready) return;
    const Range own = share(to.panels(), worker.id, worker.threads);
    int64_t outputs[PANEL<T>];  // of a panel's lanes
    for (int64_t p = own.begin; p < own.end; ++p) {
        T* panel = to.data + p * to.depth * PANEL<T>;
        fill(panel, T(0), to.depth * PANEL<T>);
        for (int64_t lane = 0; lane < PANEL<T>; ++lane)
            outputs[lane] = out.feature(p * PANEL<T> + lane);
        for (int64_t f = 0; f < in.features(); ++f) {  // whole rows: places cost divisions
            T* lanes = panel + in.place(f) * PANEL<T>;
            for (int64_t lane = 0; lane < PANEL<T>; ++lane)
                if (outputs[lane] >= 0) lanes[lane] = w[outputs[lane] * row + f * column];
        }
    }
}

// This worker's share of a layer's panels.
template <typename T>
void pack_layer(const Panels<T>& to, const Network<T>& net, int64_t l, const Worker& worker) {
    const Layer<T>& from = net.layers[l];
    const Side in = side_in(net, l), out = side_out(net, l);
    pack_share(to.forward, from.weight, from.row, from.column, out, in, worker);
    pack_share(to.backward, from.weight, from.column, from.row, in, out, worker);
}

// This worker's share of the layer's bias, as its output lies.
template <typename T>
void fill_bias(const PackedLayer<T>& to, const Layer<T>& from, const Worker& worker) {
    const Side& out = to.out;
    if (out.pixels() == 1) {
        const Range own = share(panels_of<T>(out.size()), worker.id, worker.threads);
        for (int64_t j = own.begin * PANEL<T>; j < own.end * PANEL<T>; ++j)
            to.bias[j] = from.bias && j < from.outputs ? from.bias[j] : 0;
        return;
    }
    const Range own = share(out.blocks(), worker.id, worker.threads);
    const int64_t channel = from.pixels ? 1 : out.pixels(), pixel = from.pixels ? 0 : 1;
    for (int64_t first = own.begin * out.lanes; first < own.end * out.lanes; first += out.lanes)
        for (int64_t p = 0; p < out.pixels(); ++p) {
            T* row = to.bias + out.place(first, p);
            for (int64_t c = 0; c < out.lanes; ++c) {
                const bool pads = !from.bias || first + c >= out.channels;
                row[c] = pads ? T(0) : from.bias[(first + c) * channel + p * pixel];
            }
        }
    if (own.end == out.blocks())
        for (int64_t j = out.size(); j < panels_of<T>(out.size()) * PANEL<T>; ++j) to.bias[j] = 0;
}

// This worker's share of the packing; then a barrier of all threads.
template <typename T>
void pack_network(const PackedNetwork<T>& packed, const Network<T>& net, const Worker& worker) {
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& from = net.layers[l];
        const PackedLayer<T>& to = packed[l];
        pack_layer<T>({to.forward, to.backward, nullptr, nullptr}, net, l, worker);
        pack_window(to.window_forward, worker);
        pack_window(to.window_back, worker);
        fill_bias(to, from, worker);
    }
    worker.everyone->wait();
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
