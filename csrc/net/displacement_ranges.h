// How far each unit's pre-activation moves in its row's ball, layer by layer for a block of rows.
#pragma once

#include "net/displacement_walk.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr double ULP = 0x1p-52;

// What rounding adds to a sum over the layer's inputs, per unit of its magnitudes.
inline double rounds_by(const Layer<double>& layer) { return double(layer.inputs + 16) * ULP; }

// The affine form of each of layer l's units for row r of the block: shift ± (R‖row‖ + Σ |N| ε).
inline void pull_units(const DisplacementWalk& walk, const WalkSpace& space, int64_t l, int64_t r,
                       double radius) {
    const Layer<double>& top = walk.layer(l);
    const int64_t units = units_of(top), ld = walk.widest;
    for (int64_t u = 0; l == 0 && u < units; ++u) {
        space.hi[u] = radius * walk.call.unit_norms[u];
        space.lo[u] = -space.hi[u];
    }
    for (int64_t u = 0, count; l > 0 && u < units; u += count) {
        count = units - u < PULLED ? units - u : PULLED;
        Moves moves[PULLED];
        double squares[PULLED], *rows = space.rows, *next = space.pulled;
        for (int64_t i = 0; i < count; ++i) {
            const double* from = unit_row(top, u + i, rows + i * ld);
            moves[i] =
                through(walk.layer(l - 1), walk.relaxed(space, l - 1, r), from, rows + i * ld);
        }
        for (int64_t k = l - 1; k > 0; --k) {
            multiply_rows(rows, ld, count, walk.backward[k], next, ld, space.scratch);
            for (int64_t i = 0; i < count; ++i)
                moves[i] += through(walk.layer(k - 1), walk.relaxed(space, k - 1, r), next + i * ld,
                                    next + i * ld);
            double* const free = rows;
            rows = next, next = free;
        }
        square_norms(rows, ld, count, walk.backward[0], squares, space.scratch);
        for (int64_t i = 0; i < count; ++i) {
            const double half = radius * __builtin_sqrt(squares[i]) + moves[i].half;
            space.lo[u + i] = moves[i].middle - half;
            space.hi[u + i] = moves[i].middle + half;
        }
    }
}

// The ends of a row's units: intersected with what `plain` ranges [low, high] of the features
// leave, widened by rounding, around 0; zeros up to whole panels.
inline void join_ranges(const DisplacementWalk& walk, const WalkSpace& space, int64_t l, int64_t r,
                        double radius, bool plain, Taint& taint) {
    const Layer<double>& layer = walk.layer(l);
    const int64_t units = units_of(layer), at = r * walk.widest;
    const double *low = space.low + at, *high = space.high + at, *reach = space.reach + at;
    const double *lo = space.lo, *hi = space.hi, pad = walk.call.slack * radius;
    double sum = 0;  // NaN with the first number that is not finite
    for (int64_t u = 0; u < units; ++u) {
        const bool pair = pairs(layer);
        const double moved = pair ? reach[2 * u] + reach[2 * u + 1] : reach[u];
        double least = lo[u], most = hi[u];
        sum += (least + most + moved) * 0.0;
        if (plain) {
            const double below = pair ? low[2 * u] - high[2 * u + 1] : low[u];
            const double above = pair ? high[2 * u] - low[2 * u + 1] : high[u];
            sum += (below + above) * 0.0;
            least = below > least ? below : least;
            most = above < most ? above : most;
        }
        least -= pad * moved, most += pad * moved;
        space.lo[u] = least < 0 ? least : 0.0;
        space.hi[u] = most > 0 ? most : 0.0;
    }
    taint.add(broadcast(sum));
    for (int64_t u = units; u < padded_units(layer); ++u) space.lo[u] = space.hi[u] = 0;
}

// Bounds of the features' magnitudes before the activation to those after it.
inline void steepen(const DisplacementWalk& walk, const WalkSpace& space, int64_t l, double* t) {
    const Layer<double>& layer = walk.layer(l);
    const double steepest = walk.call.curves[l].steepest;
    if (pairs(layer)) {  // neither of a pair moves further than the one that moves more
        for (int64_t j = 0; j < layer.outputs; j += 2)
            t[j] = t[j + 1] = t[j] > t[j + 1] || t[j] != t[j] ? t[j] : t[j + 1];
        return;
    }
    const bool grows = steepest != steepest;
    for_each_vector<double>(layer.outputs, [&](int64_t j, int64_t n) VAEFAST_FLAT {
        const Doubles end = load(space.anchor + j) + load(space.hi + j);
        const Doubles by = grows ? ExpHalfCurve{}.slope(end) : broadcast(steepest);
        store<double>(t + j, load(t + j, n) * by, n);
    });
}

// Row r's ranges and relaxations at layer l; of its output then low, high, reach and loss.
inline void relax_row(const DisplacementWalk& walk, const WalkSpace& space, int64_t l, int64_t r,
                      int64_t b, int64_t features, int64_t units, bool plain, Taint& taint) {
    const Layer<double>& layer = walk.layer(l);
    const NetDisplacementBound& call = walk.call;
    const double radius = call.radius[b], *pre = call.pre[b] + features;
    const int64_t own = units_of(layer), padded = padded_units(layer), at = r * walk.widest;
    for (int64_t u = 0; u < padded; ++u)
        space.anchor[u] = u >= own ? 0 : pairs(layer) ? pre[2 * u] - pre[2 * u + 1] : pre[u];
    pull_units(walk, space, l, r, radius);
    join_ranges(walk, space, l, r, radius, plain, taint);
    if (call.low.data) {
        copy(call.low[b] + units, space.lo, own);
        copy(call.high[b] + units, space.hi, own);
    }
    steepen(walk, space, l, space.reach + at);
    steepen(walk, space, l, space.loss + at);
    with_curve(layer.activation, layer.parameters, [&](const auto& curve) {
        relax(curve, call.curves[l], space.anchor, space.lo, space.hi, walk.relaxed(space, l, r),
              padded, taint);
    });
    copy(space.low + at, space.lo, pairs(layer) ? 0 : own);
    copy(space.high + at, space.hi, pairs(layer) ? 0 : own);
}

// What the first layer's pre-activations do, for each row of the block.
inline void start_ranges(const DisplacementWalk& walk, const WalkSpace& space, Range block) {
    const NetDisplacementBound& call = walk.call;
    for (int64_t r = 0; r < block.size(); ++r) {
        const int64_t b = block.begin + r, at = r * walk.widest;
        for (int64_t j = 0; j < walk.layer(0).outputs; ++j) {
            const double norm = call.feature_norms[j];
            space.low[at + j] = -call.radius[b] * norm;
            space.high[at + j] = call.radius[b] * norm;
            space.reach[at + j] = norm;
            space.loss[at + j] = call.first_rounding[b][j];
        }
    }
}

// From the output of layer l − 1, whose pre-activations start at column `features` of a row, to
// layer l's pre-activations.
inline void advance_ranges(const DisplacementWalk& walk, WalkSpace& space, int64_t l, Range block,
                           int64_t features, bool plain) {
    const Layer<double>&layer = walk.layer(l), &before = walk.layer(l - 1);
    const int64_t rows = block.size(), ld = walk.widest, n = before.outputs;
    const double by = rounds_by(layer);
    for (int64_t r = 0; r < rows; ++r) {
        double *low = space.low + r * ld, *high = space.high + r * ld, *loss = space.loss + r * ld;
        const double* pre = walk.call.pre[block.begin + r] + features;
        copy_padded(space.anchor, pre, n);
        activate<double>(before.activation, before.parameters, space.anchor, space.lo, nullptr,
                         panels_of<double>(n) * PANEL<double>);
        for (int64_t j = 0; j < n; ++j) {
            loss[j] += by * (__builtin_fabs(space.lo[j]) + __builtin_fabs(pre[j]));
            const double middle = 0.5 * (low[j] + high[j]), half = 0.5 * (high[j] - low[j]);
            low[j] = middle, high[j] = half;
        }
    }
    const Packed<double>&W = walk.forward[l], &absolute = walk.absolute[l];
    double *const *next = space.next, *scratch = space.scratch;
    if (plain) multiply_rows(space.low, ld, rows, W, next[0], ld, scratch);
    if (plain) multiply_rows(space.high, ld, rows, absolute, next[1], ld, scratch);
    multiply_rows(space.reach, ld, rows, absolute, next[2], ld, scratch);
    multiply_rows(space.loss, ld, rows, absolute, next[3], ld, scratch);
    for (int64_t r = 0; r < rows; ++r) {
        const double* pre = walk.call.pre[block.begin + r] + features + n;
        for (int64_t j = 0; j < layer.outputs; ++j) {
            const int64_t at = r * ld + j;
            const double bias = layer.bias ? __builtin_fabs(layer.bias[j]) : 0.0;
            space.low[at] = next[0][at] - next[1][at];
            space.high[at] = next[0][at] + next[1][at];
            space.reach[at] = next[2][at];
            space.loss[at] = next[3][at] + by * (__builtin_fabs(pre[j]) + bias);
        }
    }
}

// All layers' ranges and relaxations for the block's rows; taints[r] tells what overflowed.
inline void walk_ranges(const DisplacementWalk& walk, WalkSpace& space, Range block,
                        Taint* taints) {
    start_ranges(walk, space, block);
    bool plain = true;  // ranges of the features are known
    for (int64_t l = 0, features = 0, units = 0; l < walk.depth(); ++l) {
        const Layer<double>& layer = walk.layer(l);
        if (l > 0) {
            advance_ranges(walk, space, l, block, features, plain);
            features += walk.layer(l - 1).outputs;
        }
        if (layer.activation == Activation::identity) continue;
        for (int64_t r = 0; r < block.size(); ++r)
            relax_row(walk, space, l, r, block.begin + r, features, units, plain, taints[r]);
        units += units_of(layer);
        plain = plain && !pairs(layer);
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
