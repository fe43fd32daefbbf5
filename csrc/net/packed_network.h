// A network's weights in panels, packed once per call or once for several.
#pragma once

#include "net/rows.h"
#include "net/transposed_product.h"
#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// A row of `count` elements, padded to whole panels and off the powers of two, where rows would
// share cache sets.
template <typename T>
constexpr int64_t padded(int64_t count) {
    return panels_of<T>(count) * PANEL<T> + CACHE_LINE / int64_t(sizeof(T));
}

template <typename T>
struct PackedLayer {
    Packed<T> forward;   // W; without data where few rows turn Wᵀ instead
    Packed<T> backward;  // Wᵀ, where the call goes back
    T* bias;             // padded
    Activation activation;
    Parameters<T> parameters;
};

// A network packed once per call, or once for several.
template <typename T>
struct PackedNetwork {
    PackedLayer<T>* layers;
    int64_t depth;

    const PackedLayer<T>& operator[](int64_t l) const { return layers[l]; }
    const PackedLayer<T>& last() const { return layers[depth - 1]; }
};

template <typename T>
int64_t weight_bytes(const Network<T>& net) {
    int64_t weights = 0;
    for (int64_t l = 0; l < net.depth; ++l) weights += net.layers[l].outputs * net.layers[l].inputs;
    return weights * int64_t(sizeof(T));
}

// Whether so few rows go forward through Wᵀ: both copies together would leave the caches.
template <typename T>
bool multiplies_transposed(const Network<T>& net, int64_t rows, int threads) {
    for (int64_t l = 0; l < net.depth; ++l)
        if (!net.layers[l].inputs) return false;
    return TRANSPOSES<T> && rows <= FEW_ROWS && 2 * weight_bytes(net) > threads * OWN_CACHE;
}

// Rows that pay a thread for reading all weights by itself: one where these stay in its cache.
template <typename T>
int64_t enough_rows(const Network<T>& net) {
    return 2 * weight_bytes(net) > 2 * OWN_CACHE ? 16 : 1;
}

// A layer's weights in both directions.
template <typename T>
struct Panels {
    Packed<T> forward, backward;
};

// Room for the directions that are wanted.
template <typename T>
Panels<T> take_panels(Arena& arena, const Layer<T>& layer, int directions) {
    const int64_t out = layer.outputs, in = layer.inputs, size = packed_size<T>(out, in);
    T* forward = directions & forward_panels ? arena.take<T>(size) : nullptr;
    T* back = directions & backward_panels ? arena.take<T>(packed_size<T>(in, out)) : nullptr;
    return {{forward, out, in, false}, {back, in, out, false}};
}

template <typename T>
PackedNetwork<T> take_network(Arena& arena, const Network<T>& net, bool backward, bool transposed) {
    PackedNetwork<T> to = {arena.take<PackedLayer<T>>(net.depth), net.depth};
    const int wanted = (transposed ? 0 : forward_panels) | (backward ? backward_panels : 0);
    Arena pack = {net.packed, 0};
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& from = net.layers[l];
        const Panels<T> given = take_panels(pack, from, forward_panels | backward_panels);
        Panels<T> own = take_panels(arena, from, wanted & ~net.directions);
        if (wanted & net.directions & forward_panels) own.forward = given.forward.as_ready();
        if (wanted & net.directions & backward_panels) own.backward = given.backward.as_ready();
        T* bias = arena.take<T>(padded<T>(from.outputs));
        if (to.layers)
            to.layers[l] = {own.forward, own.backward, bias, from.activation, from.parameters};
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

// This worker's share of the packing; then a barrier of all threads.
template <typename T>
void pack_network(const PackedNetwork<T>& packed, const Network<T>& net, const Worker& worker) {
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<T>& from = net.layers[l];
        const PackedLayer<T>& to = packed[l];
        pack_share(to.forward, from.weight, from.row, from.column, worker);
        pack_share(to.backward, from.weight, from.column, from.row, worker);
        const Range own = share(to.forward.panels(), worker.id, worker.threads);
        for (int64_t j = own.begin * PANEL<T>; j < own.end * PANEL<T>; ++j)
            to.bias[j] = from.bias && j < from.outputs ? from.bias[j] : 0;
    }
    worker.everyone->wait();
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
