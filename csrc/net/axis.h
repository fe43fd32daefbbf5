// The taps of a convolution along one axis. Outputs with the same taps form a class: interior,
// borders, and for a transposed convolution each remainder of the stride.
#pragma once

#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

struct Tap {
    int64_t input;   // of the class's first output
    int64_t weight;  // index among the kernel's, which is packed in the order of the inputs
};

// Outputs first + i·step for i < count, with taps [begin, begin + taps) of the axis.
struct AxisClass {
    int64_t first, step, count, begin, taps;

    bool holds(int64_t output) const {
        const int64_t i = (output - first) / step;
        return output >= first && (output - first) % step == 0 && i < count;
    }
    // The i of the outputs in `band`.
    Range within(Range band) const {
        const auto from = [&](int64_t output) {
            const int64_t i = output <= first ? 0 : (output - first + step - 1) / step;
            return i < count ? i : count;
        };
        return {from(band.begin), from(band.end)};
    }
};

struct Axis {
    AxisClass* classes;
    Tap* taps;
    int64_t size;   // of the classes
    int64_t apart;  // inputs of neighbouring outputs of a class
};

// Taps of one output: those whose input exists, by ascending input.
inline int64_t taps_of(const AxisSizes& a, bool to_more, int64_t inputs, int64_t output,
                       Tap* taps) {
    int64_t count = 0;
    for (int64_t j = 0; j < a.kernel; ++j) {
        const int64_t t = to_more ? a.kernel - 1 - j : j;
        int64_t input = output * a.stride + t * a.dilation - a.padding;
        if (to_more) {
            input = output + a.padding - t * a.dilation;
            if (input % a.stride) continue;
            input /= a.stride;
        }
        if (input >= 0 && input < inputs) taps[count++] = {input, j};
    }
    return count;
}

inline bool same_weights(const Tap* a, const Tap* b, int64_t count) {
    for (int64_t j = 0; j < count; ++j)
        if (a[j].weight != b[j].weight) return false;
    return true;
}

// to_more: from the side with fewer pixels to the other.
inline Axis take_axis(Arena& arena, const AxisSizes& a, bool to_more, int64_t inputs,
                      int64_t outputs) {
    Axis axis = {arena.take<AxisClass>(outputs), arena.take<Tap>((outputs + 1) * a.kernel), 0,
                 to_more ? 1 : a.stride};
    if (!arena.base) return axis;
    const int64_t step = to_more ? a.stride : 1;
    int64_t used = 0;
    for (int64_t o = 0; o < outputs; ++o) {
        bool known = false;
        for (int64_t c = 0; c < axis.size; ++c) known = known || axis.classes[c].holds(o);
        if (known) continue;
        Tap* own = axis.taps + used;
        AxisClass found = {o, step, 1, used, taps_of(a, to_more, inputs, o, own)};
        used += found.taps;
        for (int64_t next; (next = o + found.count * step) < outputs; ++found.count) {
            Tap* other = axis.taps + used;
            if (taps_of(a, to_more, inputs, next, other) != found.taps) break;
            if (!same_weights(own, other, found.taps)) break;
        }
        axis.classes[axis.size++] = found;
    }
    return axis;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
