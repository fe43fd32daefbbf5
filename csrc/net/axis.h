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

struct Classes {
    AxisClass* data;
    int64_t size;

    const AxisClass* begin() const { return data; }
    const AxisClass* end() const { return data + size; }
};

struct Axis {
    Classes together;  // all taps of an output
    Classes singly;    // one tap: all outputs that take it
    Tap* taps;
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

// Classes of outputs with the same taps; `taps` gets them.
inline void find_classes(Axis& axis, const AxisSizes& a, bool to_more, int64_t inputs,
                         int64_t outputs) {
    const int64_t step = to_more ? a.stride : 1;
    int64_t used = 0;
    for (int64_t o = 0; o < outputs; ++o) {
        bool known = false;
        for (const AxisClass& c : axis.together) known = known || c.holds(o);
        if (known) continue;
        Tap* own = axis.taps + used;
        AxisClass found = {o, step, 1, used, taps_of(a, to_more, inputs, o, own)};
        used += found.taps;
        for (int64_t next; (next = o + found.count * step) < outputs; ++found.count) {
            Tap* other = axis.taps + used;
            if (taps_of(a, to_more, inputs, next, other) != found.taps) break;
            if (!same_weights(own, other, found.taps)) break;
        }
        axis.together.data[axis.together.size++] = found;
    }
}

// Per tap the outputs that take it, from the classes: neighbours of one step follow each other.
inline void find_singles(Axis& axis, int64_t kernel, int64_t outputs) {
    for (int64_t j = 0; j < kernel; ++j) {
        AxisClass found = {0, 1, 0, 0, 1};
        for (int64_t o = 0; o < outputs; ++o)
            for (const AxisClass& c : axis.together)
                for (int64_t t = c.begin; c.holds(o) && t < c.begin + c.taps; ++t) {
                    if (axis.taps[t].weight != j) continue;
                    if (!found.count++) found.first = o, found.step = c.step, found.begin = t;
                }
        if (found.count) axis.singly.data[axis.singly.size++] = found;
    }
}

// to_more: from the side with fewer pixels to the other.
inline Axis take_axis(Arena& arena, const AxisSizes& a, bool to_more, int64_t inputs,
                      int64_t outputs) {
    Axis axis = {{arena.take<AxisClass>(outputs), 0},
                 {arena.take<AxisClass>(a.kernel), 0},
                 arena.take<Tap>((outputs + 1) * a.kernel),
                 to_more ? 1 : a.stride};
    if (!arena.base) return axis;
    find_classes(axis, a, to_more, inputs, outputs);
    find_singles(axis, a.kernel, outputs);
    return axis;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
