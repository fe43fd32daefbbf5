// How the features between two layers lie in memory: channels in blocks of lanes, within a block
// pixel by pixel, so that a vector holds channels. Callers' images are blocks of one lane.
#pragma once

#include "net/product.h"
#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// A row of `count` elements, padded to whole panels and off the powers of two, where rows would
// share cache sets.
template <typename T>
constexpr int64_t padded(int64_t count) {
    return panels_of<T>(count) * PANEL<T> + CACHE_LINE / int64_t(sizeof(T));
}

struct Side {
    int64_t channels, height, width;
    int64_t lanes;  // channels of a block

    int64_t pixels() const { return height * width; }
    int64_t blocks() const { return (channels + lanes - 1) / lanes; }
    // Elements of a row, those included that pad the last block.
    int64_t size() const { return blocks() * pixels() * lanes; }
    int64_t place(int64_t channel, int64_t pixel) const {
        return (channel / lanes * pixels() + pixel) * lanes + channel % lanes;
    }
    // Where feature f lies, counted as callers do: channel by channel.
    int64_t place(int64_t feature) const { return place(feature / pixels(), feature % pixels()); }
    // The feature at a place, −1 where it pads.
    int64_t feature(int64_t place) const {
        const int64_t channel = place / (pixels() * lanes) * lanes + place % lanes;
        return channel < channels ? channel * pixels() + place / lanes % pixels() : -1;
    }
    int64_t features() const { return channels * pixels(); }
    bool plain() const { return lanes == 1 || pixels() == 1; }  // features lie as callers count
    bool lies_as(const Side& other) const {
        return (plain() && other.plain()) || (lanes == other.lanes && channels == other.channels &&
                                              height == other.height && width == other.width);
    }
};

// Channels that a product's vectors hold together.
template <typename T>
constexpr int64_t lanes_of(int64_t channels) {
    return channels <= width<T> ? width<T> : PANEL<T>;
}

// What a layer takes or gives, if it knows: a linear one knows no pixels.
inline Side shape_in(const Pixels& p) { return {p.in_channels, p.y.in, p.x.in, 0}; }
inline Side shape_out(const Pixels& p) { return {p.out_channels, p.y.out, p.x.out, 0}; }

// Features between layers b − 1 and b, as the layer on the side `after` sees them.
template <typename T>
Side side_at(const Network<T>& net, int64_t b, bool after) {
    const Pixels* before = b > 0 ? net.layers[b - 1].pixels : nullptr;
    const Pixels* next = b < net.depth ? net.layers[b].pixels : nullptr;
    const int64_t features = b > 0 ? net.layers[b - 1].outputs : net.layers[0].inputs;
    const Side vector = {features, 1, 1, 0};
    Side given = before ? shape_out(*before) : next ? shape_in(*next) : vector;
    Side taken = next ? shape_in(*next) : before ? shape_out(*before) : vector;
    const bool reshaped = given.channels != taken.channels || given.height != taken.height ||
                          given.width != taken.width;
    const bool callers = (b == 0 || b == net.depth) && given.pixels() > 1;
    Side& own = after ? taken : given;
    own.lanes = own.pixels() == 1     ? PANEL<T>  // as a linear layer's
                : reshaped || callers ? 1
                                      : lanes_of<T>(own.channels);
    return own;
}
template <typename T>
Side side_in(const Network<T>& net, int64_t l) {
    return side_at(net, l, true);
}
template <typename T>
Side side_out(const Network<T>& net, int64_t l) {
    return side_at(net, l + 1, false);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
