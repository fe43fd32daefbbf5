// A network as Python gives it: its layers' addresses and, where there is one, its pack.
#pragma once

#include "bind/binding.h"

namespace vaefast {
namespace {

// weight, its row and column stride, bias or 0, outputs, inputs, activation and its two parameters
using LayerAt =
    std::tuple<Address, int64_t, int64_t, Address, int64_t, int64_t, int, double, double>;
// Of a layer among convolutions: 1 where it is one and 0 for a linear one, transposed, channels in
// and out, groups; of either axis in, out, kernel, stride, padding, dilation; the residual's layer.
using PixelsAt = std::array<int64_t, 18>;
// Layers, address of the pack (0 for none) and its bytes, pixels (none for an MLP).
using LayersAt = std::tuple<std::vector<LayerAt>, Address, int64_t, std::vector<PixelsAt>>;

constexpr char PACK[8] = "vf-pack";

// What a pack starts with; the network's widths follow, then from a cache line on its panels.
struct PackHeader {
    char magic[8];
    char level[16];
    int64_t element;  // bytes
    int64_t depth;
    int64_t directions;
    uint64_t pixels;  // a hash of the convolutions' sizes, 0 for an MLP
};

constexpr int64_t header_bytes(int64_t depth) {
    return (int64_t(sizeof(PackHeader)) + (depth + 1) * int64_t(sizeof(int64_t)) + 63) / 64 * 64;
}

// A level's name, and not whatever a foreign tensor holds there.
bool is_text(const char (&level)[16]) {
    for (const char c : level) {
        if (!c) return true;
        if (c < ' ' || c > '~') return false;
    }
    return false;
}

std::string described(const char* level, int64_t element, const int64_t* widths, int64_t depth,
                      uint64_t pixels) {
    std::string text = std::string(level) + (element == 4 ? ", float32, " : ", float64, ");
    for (int64_t l = 0; l <= depth; ++l) text += (l ? "-" : "") + std::to_string(widths[l]);
    return pixels ? text + ", convolutions " + std::to_string(pixels % 1000000) : text;
}

uint64_t hash_of(const std::vector<PixelsAt>& pixels) {
    uint64_t hash = pixels.empty() ? 0 : 14695981039346656037u;  // FNV-1a
    for (const auto& layer : pixels)
        for (const int64_t size : layer) hash = (hash ^ uint64_t(size)) * 1099511628211u;
    return hash;
}

Pixels pixels_of(const PixelsAt& p) {
    const double weight = p[1] ? 1 : 1 / (double(p[7]) * double(p[13]));
    return {p[1] != 0,
            p[2],
            p[3],
            p[4],
            {p[5], p[6], p[7], p[8], p[9], p[10]},
            {p[11], p[12], p[13], p[14], p[15], p[16]},
            weight};
}

// The layers of a call, and its pack.
template <typename T>
struct Layers {
    std::vector<Layer<T>> layers;
    PackHeader* pack;
    std::vector<Pixels> pixels = {};  // the layers point into it
    uint64_t hash = 0;

    std::vector<int64_t> widths() const {
        std::vector<int64_t> widths = {layers[0].inputs};
        for (const auto& layer : layers) widths.push_back(layer.outputs);
        return widths;
    }
    int64_t* packed_widths() const { return reinterpret_cast<int64_t*>(pack + 1); }
    char* panels() const {
        return pack ? reinterpret_cast<char*>(pack) + header_bytes(layers.size()) : nullptr;
    }
    int64_t bytes() const {
        const Network<T> plain = {layers.data(), int64_t(layers.size())};
        return header_bytes(plain.depth) + of<T>(*active().kernels).packed_bytes(plain);
    }
    // Write the header of an empty pack.
    void start() const {
        *pack = {};
        std::memcpy(pack->magic, PACK, sizeof PACK);
        std::strncpy(pack->level, active().name.c_str(), sizeof pack->level - 1);
        pack->element = sizeof(T);
        pack->depth = int64_t(layers.size());
        pack->pixels = hash;
        const auto own = widths();
        std::memcpy(packed_widths(), own.data(), own.size() * sizeof(int64_t));
    }
    // The pack was made for this network, dtype and instruction-set level.
    void check(int64_t given) const {
        const auto own = widths();
        const std::string want =
            described(active().name.c_str(), sizeof(T), own.data(), own.size() - 1, hash);
        std::string got = "something else";
        if (given >= int64_t(sizeof(PackHeader)) && !std::memcmp(pack->magic, PACK, sizeof PACK) &&
            pack->depth > 0 && pack->depth < given / int64_t(sizeof(int64_t)) &&
            given >= header_bytes(pack->depth) && is_text(pack->level))
            got = described(pack->level, pack->element, packed_widths(), pack->depth, pack->pixels);
        if (got == want && given >= bytes()) return;
        throw py::value_error("net.packed must be a whole pack for " + want + ", got " +
                              (got == want ? "a part of it" : got) + "; pass packed=None");
    }
};

template <typename T>
Layers<T> layers_at(const LayersAt& given) {
    const auto& [plain, packed, bytes, pixels] = given;
    Layers<T> all = {{}, reinterpret_cast<PackHeader*>(packed)};
    for (const auto& [weight, row, column, bias, outputs, inputs, activation, p1, p2] : plain)
        all.layers.push_back({reinterpret_cast<const T*>(weight),
                              row,
                              column,
                              reinterpret_cast<const T*>(bias),
                              outputs,
                              inputs,
                              Activation(activation),
                              {T(p1), T(p2)},
                              NO_RESIDUAL,
                              nullptr});
    for (const auto& sizes : pixels) all.pixels.push_back(pixels_of(sizes));
    for (size_t l = 0; l < pixels.size(); ++l) {
        all.layers[l].residual = pixels[l][17];
        if (pixels[l][0]) all.layers[l].pixels = &all.pixels[l];
    }
    all.hash = hash_of(pixels);
    if (packed) all.check(bytes);
    return all;
}

template <typename T>
Network<T> network(const Layers<T>& all) {
    return {all.layers.data(), int64_t(all.layers.size()), all.panels(),
            all.pack ? int(all.pack->directions) : 0};
}

template <typename T>
int64_t net_pack_bytes(const LayersAt& net) {
    return layers_at<T>(net).bytes();
}

// Begin a pack in memory of net_pack_bytes.
template <typename T>
void net_pack_start(const LayersAt& net, Address pack) {
    auto all = layers_at<T>(net);
    all.pack = reinterpret_cast<PackHeader*>(pack);
    all.start();
}

// Fill what a pack lacks of `directions`; whether that was anything.
template <typename T>
bool net_pack(const LayersAt& net, int directions, int threads) {
    const auto all = layers_at<T>(net);
    const int lacking = directions & ~int(all.pack->directions);
    if (lacking) run<T>(NetPack<T>{network(all), lacking}, threads);
    all.pack->directions |= lacking;
    return lacking;
}

}  // namespace
}  // namespace vaefast
