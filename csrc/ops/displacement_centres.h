// The pre-activations at the centres of balls, in float64, and what rounding leaves of the first.
#pragma once

#include "net/displacement_ranges.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

struct CentreSpace {
    double *sizes, *h, *scratch;  // [ROWS, D] and [ROWS, widest]
};

// The call's buffers: W of every layer in panels, |W₁|, and each thread's rows.
struct Centres {
    const DisplacementCentres& call;
    int64_t widest;
    Packed<double>* forward;
    Packed<double> absolute = {};
    CentreSpace* spaces = nullptr;
};

inline Centres take_centres(Arena& arena, const DisplacementCentres& call, int threads) {
    const Network<double>& net = call.net;
    const int64_t D = net.inputs(), H = net.layers[0].outputs;
    Centres all = {call, 0, arena.take<Packed<double>>(net.depth)};
    all.absolute = {arena.take<double>(packed_size<double>(H, D)), H, D, false};
    all.spaces = arena.take<CentreSpace>(threads);
    for (int64_t l = 0; l < net.depth; ++l) {
        const int64_t out = net.layers[l].outputs, in = net.layers[l].inputs;
        double* data = arena.take<double>(packed_size<double>(out, in));
        if (arena.base) all.forward[l] = {data, out, in, false};
        all.widest = padded<double>(out) > all.widest ? padded<double>(out) : all.widest;
    }
    for (int t = 0; t < threads; ++t) {
        const CentreSpace space = {arena.take<double>(ROWS * padded<double>(D)),
                                   arena.take<double>(ROWS * all.widest),
                                   arena.take<double>(scratch_size<double>(ROWS))};
        if (arena.base) all.spaces[t] = space;
    }
    return all;
}

inline void pack_centres(const Centres& all, const Worker& worker) {
    const Network<double>& net = all.call.net;
    for (int64_t l = 0; l < net.depth; ++l)
        pack_share(all.forward[l], net.layers[l].weight, net.layers[l].row, 1, worker);
    pack_share(all.absolute, net.layers[0].weight, net.layers[0].row, 1, worker);
    const Range own = share(all.absolute.panels(), worker.id, worker.threads);
    const int64_t panel = all.absolute.depth * PANEL<double>;
    for (int64_t j = own.begin * panel; j < own.end * panel; ++j)
        all.absolute.data[j] = __builtin_fabs(all.absolute.data[j]);
    worker.everyone->wait();
}

// The block's pre-activations of all layers.
inline void pass_centres(const Centres& all, const CentreSpace& space, Range block) {
    const DisplacementCentres& call = all.call;
    const double* h = call.x[block.begin];
    int64_t stride = call.x.stride, at = 0;
    for (int64_t l = 0; l < call.net.depth; ++l) {
        const Layer<double>& layer = call.net.layers[l];
        const int64_t n = layer.outputs;
        double* pre = call.pre[block.begin] + at;
        multiply_rows(h, stride, block.size(), all.forward[l], pre, call.pre.stride, space.scratch);
        for (int64_t r = 0; r < block.size(); ++r) {
            double *row = pre + r * call.pre.stride, *to = space.h + r * all.widest;
            for (int64_t j = 0; layer.bias && j < n; ++j) row[j] += layer.bias[j];
            copy_padded(to, row, n);
            activate<double>(layer.activation, layer.parameters, to, to, nullptr,
                             panels_of<double>(n) * PANEL<double>);
        }
        h = space.h, stride = all.widest, at += n;
    }
}

// What rounding leaves of the first layer's.
inline void round_first(const Centres& all, const CentreSpace& space, Range block) {
    const DisplacementCentres& call = all.call;
    const Layer<double>& layer = call.net.layers[0];
    const int64_t D = layer.inputs, stride = padded<double>(D);
    const double by = rounds_by(layer);
    for (int64_t r = 0; r < block.size(); ++r)
        for (int64_t j = 0; j < D; ++j)
            space.sizes[r * stride + j] = by * __builtin_fabs(call.x[block.begin + r][j]);
    multiply_rows(space.sizes, stride, block.size(), all.absolute, call.rounding[block.begin],
                  call.rounding.stride, space.scratch);
    for (int64_t r = 0; r < block.size(); ++r)
        for (int64_t j = 0; j < layer.outputs; ++j) {
            const double bias = layer.bias ? __builtin_fabs(layer.bias[j]) : 0.0;
            call.rounding[block.begin + r][j] +=
                by * (__builtin_fabs(call.pre[block.begin + r][j]) + bias);
        }
}

inline Outcome displacement_centres(const DisplacementCentres& call, const Call& given) {
    const Call how = of_rows(given, call.B);
    Memory memory;
    const auto all =
        memory.layout([&](Arena& arena) { return take_centres(arena, call, how.threads); });
    if (!memory.base) return Outcome::no_memory;
    return run_workers(how, how.threads, [&](const Worker& worker) {
        pack_centres(all, worker);
        for_each_block(worker, call.B, ROWS, [&](Range block) {
            pass_centres(all, all.spaces[worker.id], block);
            round_first(all, all.spaces[worker.id], block);
        });
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
