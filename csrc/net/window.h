// A convolution in one direction: its taps, its sides, its weights in panels.
//
// Rows of the product are pixels of any of the call's rows, k runs over the input channels for each
// tap, or over the taps of each channel where pixels run fastest. Where the outputs are a caller's
// image, each input pixel is multiplied with all taps at once and their products are summed: see
// spread.h.
#pragma once

#include "net/axis.h"
#include "net/side.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Where an output pixel's sums come from: products of a tap with an input pixel.
struct Source {
    int32_t tap, at;
};

template <typename T>
struct Window {
    const Layer<T>* layer = nullptr;  // null: the layer is linear
    bool to_more = false;             // the output has more pixels (per stride)
    Side in = {}, out = {};
    Axis y = {}, x = {};
    bool depthwise = false;
    Side columns = {};         // of the products of all taps, where they spread; else no channels
    int32_t* begin = nullptr;  // [pixels + 1]: the sources of each output pixel
    Source* sources = nullptr;
    T* weights = nullptr;
    bool ready = false;  // packed before the call

    const Pixels& pixels() const { return *layer->pixels; }
    int64_t taps() const { return pixels().y.kernel * pixels().x.kernel; }
    bool spreads() const { return columns.channels > 0; }
    // What the product gives: the output, or all taps' products.
    const Side& product() const { return spreads() ? columns : out; }
    int64_t depth() const { return depthwise ? taps() : in.channels * (spreads() ? 1 : taps()); }
    // The place of an input channel and a tap among the sums' terms: neighbours in a row of inputs
    // are neighbours here.
    int64_t k(int64_t channel, int64_t tap) const {
        if (depthwise) return tap;
        return in.lanes == 1 && !spreads() ? channel * taps() + tap : tap * in.channels + channel;
    }
    // Rows of outputs from one to the next with the same taps.
    int64_t row_step() const { return to_more && !spreads() ? pixels().y.stride : 1; }
    int64_t packed() const { return product().blocks() * depth() * product().lanes; }
    const T* panel(int64_t p) const { return weights + p * depth() * product().lanes; }
};

// The window of layer l, forward or back, without weights and axes.
template <typename T>
Window<T> window_of(const Network<T>& net, int64_t l, bool back) {
    Window<T> w;
    w.layer = net.layers + l;
    const Pixels& p = *w.layer->pixels;
    const Side in = side_in(net, l), out = side_out(net, l);
    w.in = back ? out : in;
    w.out = back ? in : out;
    w.to_more = p.transposed != back;
    const bool each = p.groups == p.in_channels && p.groups == p.out_channels;
    w.depthwise = each && p.groups > 1 && w.in.lanes == w.out.lanes && w.in.lanes > 1;
    if (w.out.lanes == 1 && w.out.pixels() > 1) {
        const int64_t channels = w.out.channels * w.taps();
        w.columns = {channels, w.in.height, w.in.width, lanes_of<T>(channels)};
    }
    return w;
}

// The sources of every output pixel, tap by tap.
template <typename T>
void fill_sources(const Window<T>& w, Tap* rows, Tap* columns) {
    const Pixels& p = w.pixels();
    int32_t used = 0;
    for (int64_t y = 0; y < w.out.height; ++y) {
        const int64_t count = taps_of(p.y, w.to_more, w.in.height, y, rows);
        for (int64_t x = 0; x < w.out.width; ++x) {
            const int64_t across = taps_of(p.x, w.to_more, w.in.width, x, columns);
            w.begin[y * w.out.width + x] = used;
            for (int64_t i = 0; i < count; ++i)
                for (int64_t j = 0; j < across; ++j)
                    w.sources[used++] = {
                        int32_t(rows[i].weight * p.x.kernel + columns[j].weight),
                        int32_t((rows[i].input * w.in.width + columns[j].input) * w.columns.lanes)};
        }
    }
    w.begin[w.out.pixels()] = used;
}

// Lay out all but the weights.
template <typename T>
Window<T> take_window(Arena& arena, const Network<T>& net, int64_t l, bool back) {
    Window<T> w = window_of(net, l, back);
    const Pixels& p = w.pixels();
    if (!w.spreads()) {
        w.y = take_axis(arena, p.y, w.to_more, w.in.height, w.out.height);
        w.x = take_axis(arena, p.x, w.to_more, w.in.width, w.out.width);
        return w;
    }
    const AxisSizes one = {0, 0, 1, 1, 0, 1};
    w.y = take_axis(arena, one, false, w.in.height, w.in.height);
    w.x = take_axis(arena, one, false, w.in.width, w.in.width);
    w.begin = arena.take<int32_t>(w.out.pixels() + 1);
    w.sources = arena.take<Source>(w.out.pixels() * w.taps());
    Tap *rows = arena.take<Tap>(p.y.kernel), *columns = arena.take<Tap>(p.x.kernel);
    if (arena.base) fill_sources(w, rows, columns);
    return w;
}

// Whether two channels are of one group, and then where the weights of their taps begin.
template <typename T>
bool are_joined(const Window<T>& w, int64_t out, int64_t in, const T** weights) {
    const Pixels& p = w.pixels();
    const int64_t fewer = w.to_more ? in : out, more = w.to_more ? out : in;
    const int64_t of_fewer = (p.transposed ? p.in_channels : p.out_channels) / p.groups;
    const int64_t of_more = (p.transposed ? p.out_channels : p.in_channels) / p.groups;
    *weights = nullptr;
    if (p.groups > 1 && more / of_more != fewer / of_fewer) return false;
    const int64_t pair = fewer * of_more + (p.groups > 1 ? more % of_more : more);
    if (w.layer->weight) *weights = w.layer->weight + pair * w.taps();
    return true;
}

constexpr int64_t PACKED_TAPS = 16;  // taps of a channel that are packed at once

// Taps [first, first + count) of channel c for all lanes of panel p, [count, lanes].
template <typename T>
void gather_taps(const Window<T>& w, int64_t p, int64_t c, int64_t first, int64_t count, T* to) {
    const int64_t lanes = w.product().lanes, taps = w.taps();
    for (int64_t j = 0; j < count * lanes; ++j) to[j] = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t column = p * lanes + lane;
        if (column >= w.product().channels) break;
        const int64_t out = w.spreads() ? column / taps : column, in = w.depthwise ? out : c;
        const T* weights;
        if (!are_joined(w, out, in, &weights)) continue;
        for (int64_t t = 0; t < count; ++t) {
            const int64_t tap = w.spreads() ? column % taps : first + t;
            to[t * lanes + lane] =
                !weights ? T(w.pixels().weight) : weights[w.to_more ? taps - 1 - tap : tap];
        }
    }
}

// Pack panel p of the product's channels, k-major. A channel's taps lie far apart, often by a
// power of two, so whole rows of lanes are written, once each.
template <typename T>
void pack_panel(const Window<T>& w, int64_t p) {
    const int64_t lanes = w.product().lanes, taps = w.spreads() ? 1 : w.taps();
    T* to = w.weights + p * w.depth() * lanes;
    T block[PACKED_TAPS * PANEL<T>];
    for (int64_t c = 0; c < (w.depthwise ? 1 : w.in.channels); ++c)
        for (int64_t first = 0; first < taps; first += PACKED_TAPS) {
            const int64_t left = taps - first, count = left < PACKED_TAPS ? left : PACKED_TAPS;
            gather_taps(w, p, c, first, count, block);
            for (int64_t t = 0; t < count; ++t)
                for (int64_t lane = 0; lane < lanes; ++lane)
                    to[w.k(c, first + t) * lanes + lane] = block[t * lanes + lane];
        }
}

template <typename T>
void pack_window(const Window<T>& w, const Worker& worker) {
    if (!w.weights || w.ready) return;
    const Range own = share(w.product().blocks(), worker.id, worker.threads);
    for (int64_t p = own.begin; p < own.end; ++p) pack_panel(w, p);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
