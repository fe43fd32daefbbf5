// A network as Python gives it: its layers' addresses and, where there is one, its pack.
#pragma once

#include "bind/binding.h"

namespace vaefast {
namespace {

// weight, its row and column stride, bias or 0, outputs, inputs, activation and its two parameters
using LayerAt =
    std::tuple<Address, int64_t, int64_t, Address, int64_t, int64_t, int, double, double>;
// Layers, address of the pack (0 for none) and its bytes.
using LayersAt = std::tuple<std::vector<LayerAt>, Address, int64_t>;

constexpr char PACK[8] = "vf-pack";

// What a pack starts with; the network's widths follow, then from a cache line on its panels.
struct PackHeader {
    char magic[8];
    char level[16];
    int64_t element;  // bytes
    int64_t depth;
    int64_t directions;
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

std::string described(const char* level, int64_t element, const int64_t* widths, int64_t depth) {
    std::string text = std::string(level) + (element == 4 ? ", float32, " : ", float64, ");
    for (int64_t l = 0; l <= depth; ++l) text += (l ? "-" : "") + std::to_string(widths[l]);
    return text;
}

// The layers of a call, and its pack.
template <typename T>
struct Layers {
    std::vector<Layer<T>> layers;
    PackHeader* pack;

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
        const auto own = widths();
        std::memcpy(packed_widths(), own.data(), own.size() * sizeof(int64_t));
    }
    // The pack was made for this network, dtype and instruction-set level.
    void check(int64_t given) const {
        const auto own = widths();
        const std::string want =
            described(active().name.c_str(), sizeof(T), own.data(), own.size() - 1);
        std::string got = "something else";
        if (given >= int64_t(sizeof(PackHeader)) && !std::memcmp(pack->magic, PACK, sizeof PACK) &&
            pack->depth > 0 && pack->depth < given / int64_t(sizeof(int64_t)) &&
            given >= header_bytes(pack->depth) && is_text(pack->level))
            got = described(pack->level, pack->element, packed_widths(), pack->depth);
        if (got == want && given >= bytes()) return;
        throw py::value_error("net.packed must be a whole pack for " + want + ", got " +
                              (got == want ? "a part of it" : got) + "; pass packed=None");
    }
};

template <typename T>
Layers<T> layers_at(const LayersAt& given) {
    const auto& [plain, packed, bytes] = given;
    Layers<T> all = {{}, reinterpret_cast<PackHeader*>(packed)};
    for (const auto& [weight, row, column, bias, outputs, inputs, activation, p1, p2] : plain)
        all.layers.push_back({reinterpret_cast<const T*>(weight),
                              row,
                              column,
                              reinterpret_cast<const T*>(bias),
                              outputs,
                              inputs,
                              Activation(activation),
                              {T(p1), T(p2)}});
    if (packed) all.check(bytes);
    return all;
}

template <typename T>
Network<T> network(const Layers<T>& all) {
    return {all.layers.data(), int64_t(all.layers.size()), all.panels(),
            all.pack ? int(all.pack->directions) : 0};
}

template <typename T>
int64_t net_pack_bytes(const std::vector<LayerAt>& layers) {
    return layers_at<T>({layers, 0, 0}).bytes();
}

// Begin a pack in memory of net_pack_bytes.
template <typename T>
void net_pack_start(const std::vector<LayerAt>& layers, Address pack) {
    auto all = layers_at<T>({layers, 0, 0});
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
