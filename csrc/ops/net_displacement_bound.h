// The affine form of a bound of how far a network's output moves in a ball: per row the Gram of
// what is pulled back to the input, and what the activations' deviations add.
#pragma once

#include "net/displacement_ranges.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

inline WalkSpace take_space(Arena& arena, const DisplacementWalk& walk) {
    const int64_t m = walk.call.net.outputs(), n = m / walk.call.groups;
    const auto block = [&] { return arena.take<double>(ROWS * walk.widest); };
    const auto relaxed = [&] { return arena.take<double>(ROWS * walk.stride); };
    const auto row = [&] { return arena.take<double>(walk.widest); };
    const auto rows = [&] { return arena.take<double>(PULLED * walk.widest); };
    WalkSpace space = {relaxed(), relaxed(),
                       relaxed(), block(),
                       block(),   block(),
                       block(),   {block(), block(), block(), block()},
                       row(),     row(),
                       row(),     rows(),
                       rows(),    arena.take<double>(scratch_size<double>(PULLED))};
    space.root = arena.take<double>(m * walk.widest);
    space.errors = arena.take<double>(m * walk.stride);
    space.own = arena.take<double>(m);
    space.deviates = arena.take<int32_t>(walk.stride + 1);
    space.starts = arena.take<int64_t>(walk.depth() + 1);
    const int64_t columns = walk.call.columns;
    space.packed_root = {arena.take<double>(packed_size<double>(n, columns)), n, columns, false};
    return space;
}

inline DisplacementWalk take_walk(Arena& arena, const NetDisplacementBound& call, int threads) {
    const Network<double>& net = call.net;
    DisplacementWalk walk = {call, padded<double>(call.columns), 0};
    walk.forward = arena.take<Packed<double>>(net.depth);
    walk.absolute = arena.take<Packed<double>>(net.depth);
    walk.backward = arena.take<Packed<double>>(net.depth);
    walk.first = arena.take<int64_t>(net.depth);
    walk.spaces = arena.take<WalkSpace>(threads);
    for (int64_t l = 0; l < net.depth; ++l) {
        const Layer<double>& layer = net.layers[l];
        const int64_t out = layer.outputs, in = layer.inputs, wide = padded<double>(out);
        const auto room = [&](bool wanted, int64_t outputs, int64_t depth) {
            double* data = arena.take<double>(wanted ? packed_size<double>(outputs, depth) : 0);
            return Packed<double>{wanted ? data : nullptr, outputs, depth, false};
        };
        const Packed<double> forward = room(l > 0, out, in), absolute = room(l > 0, out, in);
        Packed<double> backward = room(l > 0 && l + 1 < net.depth, in, out);
        if (l == 0) backward = room(true, call.columns, out);
        backward.triangular = l == 0 && call.triangular;
        if (arena.base) {
            walk.forward[l] = forward, walk.absolute[l] = absolute, walk.backward[l] = backward;
            walk.first[l] = walk.stride;
        }
        walk.widest = wide > walk.widest ? wide : walk.widest;
        walk.stride += padded_units(layer);
    }
    walk.stride = padded<double>(walk.stride);
    for (int t = 0; t < threads; ++t) {
        const WalkSpace space = take_space(arena, walk);
        if (arena.base) walk.spaces[t] = space;
    }
    return walk;
}

// This worker's share of the packing; then a barrier of all threads.
inline void pack_walk(const DisplacementWalk& walk, const Worker& worker) {
    for (int64_t l = 0; l < walk.depth(); ++l) {
        const Layer<double>& from = walk.layer(l);
        pack_share(walk.forward[l], from.weight, from.row, 1, worker);
        pack_share(walk.absolute[l], from.weight, from.row, 1, worker);
        if (l > 0) pack_share(walk.backward[l], from.weight, 1, from.row, worker);
        const Packed<double>& absolute = walk.absolute[l];
        const Range own = share(absolute.panels(), worker.id, worker.threads);
        const int64_t panel = absolute.depth * PANEL<double>;
        for (int64_t j = own.begin * panel; absolute.data && j < own.end * panel; ++j)
            absolute.data[j] = __builtin_fabs(absolute.data[j]);
    }
    const Rows<const double>& factor = walk.call.factor;
    pack_share(walk.backward[0], factor.data, 1, factor.stride, worker);
    worker.everyone->wait();
}

// The row's units with an error, layer after layer; returns how many.
inline int64_t list_deviating(const DisplacementWalk& walk, const WalkSpace& space, int64_t r) {
    int64_t count = 0;
    for (int64_t l = 0; l < walk.depth(); ++l) {
        const double* error = walk.relaxed(space, l, r).error;
        space.starts[l] = count;
        for (int64_t u = 0; u < units_of(walk.layer(l)); ++u) {
            space.deviates[count] = int32_t(u);
            count += error[u] > 0;
        }
    }
    space.starts[walk.depth()] = count;
    return count;
}

// What units' errors add to an output with these cotangents of layer l's output.
inline void record_errors(const DisplacementWalk& walk, const WalkSpace& space, int64_t l,
                          int64_t r, const double* row, double* errors) {
    const double* error = walk.relaxed(space, l, r).error;
    const bool pair = pairs(walk.layer(l));
    for (int64_t d = space.starts[l]; d < space.starts[l + 1]; ++d) {
        const int64_t u = space.deviates[d];
        errors[d] = (pair ? row[2 * u] - row[2 * u + 1] : row[u]) * error[u];
    }
}

// Output i's cotangent through the last layer, whose weights are F where it is the only one.
inline void start_output(const DisplacementWalk& walk, const WalkSpace& space, int64_t r, int64_t b,
                         int64_t i, double* unit, double* to) {
    const NetDisplacementBound& call = walk.call;
    const int64_t l = walk.depth() - 1, m = call.net.outputs();
    const Layer<double>& last = walk.layer(l);
    fill(unit, 0.0, m);
    unit[i] = call.scale.data ? call.scale[b][i] : 1.0;
    record_errors(walk, space, l, r, unit, space.errors + i * walk.stride);
    space.own[i] = through(last, walk.relaxed(space, l, r), unit, unit).middle;
    const int64_t columns = l ? last.inputs : call.columns;
    fill(to, 0.0, columns);
    for (int64_t j = i & ~int64_t(1); j < m && j <= (i | 1); ++j)
        if (unit[j] != 0) {
            const double* from = l ? last.weight + j * last.row : call.factor[j];
            for (int64_t k = 0; k < columns; ++k) to[k] += unit[j] * from[k];
        }
}

// All outputs' rows: at the input into `root`, at the units into `errors`, shifts into `own`.
inline void pull_outputs(const DisplacementWalk& walk, const WalkSpace& space, int64_t r,
                         int64_t b) {
    const int64_t m = walk.call.net.outputs(), top = walk.depth() - 1, ld = walk.widest;
    for (int64_t i = 0, count; i < m; i += count) {
        count = m - i < PULLED ? m - i : PULLED;
        double *rows = space.rows, *next = space.pulled;
        for (int64_t c = 0; c < count; ++c)
            start_output(walk, space, r, b, i + c, space.lo, rows + c * ld);
        for (int64_t l = top; l-- > 0;) {
            for (int64_t c = 0; c < count; ++c) {
                double* row = rows + c * ld;
                record_errors(walk, space, l, r, row, space.errors + (i + c) * walk.stride);
                space.own[i + c] +=
                    through(walk.layer(l), walk.relaxed(space, l, r), row, row).middle;
            }
            multiply_rows(rows, ld, count, walk.backward[l], next, ld, space.scratch);
            double* const free = rows;
            rows = next, next = free;
        }
        for (int64_t c = 0; c < count; ++c)
            copy(space.root + (i + c) * ld, rows + c * ld, walk.call.columns);
    }
}

// A group's Gram of its rows at the input.
inline void multiply_root(const DisplacementWalk& walk, const WalkSpace& space, int64_t first,
                          double* gram) {
    const Packed<double>& packed = space.packed_root;
    const int64_t n = packed.outputs, ld = walk.widest;
    const double* root = space.root + first * ld;
    pack(packed, root, ld, 1, 0, packed.panels());
    for (int64_t i = 0, count; i < n; i += count) {
        count = n - i < PULLED ? n - i : PULLED;
        multiply_rows(root + i * ld, ld, count, packed, gram + i * n, n, space.scratch);
    }
}

// Row r of the block, input b: its Grams, and what is added to their roots.
inline void bound_row(const DisplacementWalk& walk, const WalkSpace& space, int64_t r, int64_t b,
                      bool clean) {
    const NetDisplacementBound& call = walk.call;
    const int64_t m = call.net.outputs(), n = m / call.groups, at = r * walk.widest;
    const int64_t deviating = list_deviating(walk, space, r);
    for (int64_t g = 0; g < call.groups; ++g) {
        double sum = 0;
        for (int64_t i = g * n; i < (g + 1) * n; ++i) {
            const double moved = call.slack * call.radius[b] * space.reach[at + i];
            const double lost = moved + 2 * space.loss[at + i];
            const double scaled = lost * (call.scale.data ? call.scale[b][i] : 1.0);
            sum += scaled * scaled;
        }
        call.rounding[b * call.groups + g] = __builtin_sqrt(sum);
    }
    for (int64_t i = 0; i < m; ++i) {
        double* errors = space.errors + i * walk.stride;
        for (int64_t d = deviating; d < panels_of<double>(deviating) * PANEL<double>; ++d)
            errors[d] = 0;
    }
    pull_outputs(walk, space, r, b);
    for (int64_t g = 0; g < call.groups; ++g) {
        multiply_root(walk, space, g * n, call.gram + (b * call.groups + g) * n * n);
        double shift = 0;
        for (int64_t i = g * n; i < (g + 1) * n; ++i) shift += space.own[i] * space.own[i];
        const double* errors = space.errors + g * n * walk.stride;
        const double rest = __builtin_sqrt(shift) + remainder(errors, walk.stride, n, deviating);
        call.rest[b * call.groups + g] = clean && rest - rest == 0 ? rest : double(INFINITY);
    }
}

inline Outcome net_displacement_bound(const NetDisplacementBound& call, const Call& given) {
    const Call how = of_rows(given, call.B);
    Memory memory;
    const auto walk =
        memory.layout([&](Arena& arena) { return take_walk(arena, call, how.threads); });
    if (!memory.base) return Outcome::no_memory;
    return run_workers(how, how.threads, [&](const Worker& worker) {
        pack_walk(walk, worker);
        WalkSpace& space = walk.spaces[worker.id];
        for_each_block(worker, call.B, ROWS, [&](Range block) {
            Taint taints[ROWS] = {};
            walk_ranges(walk, space, block, taints);
            for (int64_t r = 0; r < block.size(); ++r)
                bound_row(walk, space, r, block.begin + r, taints[r].clean());
        });
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
