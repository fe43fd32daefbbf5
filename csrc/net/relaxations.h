// Affine relaxations: φ(a+u) − φ(a) = slope·u + shift ± error for all lo ≤ u ≤ hi, lo ≤ 0 ≤ hi.
// vaefast/functional/relaxations.py says the same.
#pragma once

#include "net/secants.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int FALSE_POSITIONS = 8;

// One row of a layer's units, as long as whole panels.
struct Relaxed {
    double *slope, *shift, *error;
};

// Becomes NaN with the first number that is not finite: maxima and minima could lose it.
struct Taint {
    Doubles sum;
    VAEFAST_INLINE void add(Doubles v) { sum += v * Doubles{}; }
    bool clean() const { return sum_lanes<double>({sum}) == 0; }
};

// What rounding takes off secants of this size; 0 where a straight curve is straight.
VAEFAST_INLINE Doubles padding(const CurveFacts& facts, Doubles width, Doubles size) {
    const Doubles pad = facts.error * size;
    return facts.straight ? (width == Doubles{} ? Doubles{} : pad) : pad;
}

// The smallest and the largest deviation found so far.
struct Extremes {
    Doubles least, most;
    VAEFAST_INLINE void add(Doubles low, Doubles high) {
        least = min(least, low);
        most = max(most, high);
    }
};

// φ' = slope by false position, once at most between two turns; ± what is left of the error.
template <typename Curve>
void add_crossings(const Curve& curve, const CurveFacts& facts, Doubles a, Doubles lo, Doubles hi,
                   Doubles slope, Extremes& extremes, Taint& taint) {
    const double ends[] = {-INFINITY, facts.turns[0], facts.turns[1], INFINITY};
    const Doubles zero = {};
    for (int s = 0; s < 3; ++s) {
        Doubles left = max(lo, ends[s] - a), right = min(hi, ends[s + 1] - a);
        Doubles f = curve.slope(a + left) - slope, g = curve.slope(a + right) - slope;
        const auto here = (left < right) & (f * g < zero);
        if (!any(here)) continue;
        Doubles fs = f, gs = g;  // as the Illinois rule scales them
        for (int i = 0; i < FALSE_POSITIONS; ++i) {
            const Doubles u = (left * gs - right * fs) / (gs - fs);
            const Doubles h = curve.slope(a + u) - slope;
            const auto moves_left = h * f > zero;
            fs = moves_left ? h : 0.5 * fs;
            gs = moves_left ? 0.5 * gs : h;
            left = moves_left ? u : left;
            right = moves_left ? right : u;
            f = moves_left ? h : f;
            g = moves_left ? g : h;
        }
        const auto closer = absolute<double>(f) < absolute<double>(g);
        const Doubles u = closer ? left : right, rate = absolute<double>(closer ? f : g);
        const Doubles value = here ? u * (curve.secant(a, u) - slope) : zero;
        const Doubles rest = here ? rate * (right - left) : zero;
        taint.add(value + rest);
        extremes.add(value - rest, value + rest);
    }
}

// The deviations between the ends.
template <typename Curve>
VAEFAST_INLINE void add_inside(const Curve& curve, const CurveFacts& facts, Doubles a, Doubles lo,
                               Doubles hi, Doubles slope, Extremes& extremes, Taint& taint) {
    if constexpr (Curve::crosses) {
        add_crossings(curve, facts, a, lo, hi, slope, extremes, taint);
    } else {
        const Points points = curve.points(slope);
        for (int i = 0; i < points.count; ++i) {
            const Doubles at = points.at[i], apart = at == at ? at - a : Doubles{};
            const Doubles u = min(hi, max(lo, apart)), value = u * (curve.secant(a, u) - slope);
            taint.add(value);
            extremes.add(value, value);
        }
    }
}

// Relaxations of `count` units, a multiple of width<double>; lo and hi become the range of
// φ(a+u) − φ(a).
template <typename Curve>
void relax(const Curve& curve, const CurveFacts& facts, const double* a_, double* lo_, double* hi_,
           Relaxed to, int64_t count, Taint& taint) {
    const Doubles zero = {};
    for (int64_t j = 0; j < count; j += width<double>) {
        const Doubles a = load(a_ + j), lo = load(lo_ + j), hi = load(hi_ + j);
        taint.add(a + lo + hi);
        const Doubles below = curve.secant(a, lo), above = curve.secant(a, hi);
        const Doubles chord = (hi * above - lo * below) / (hi - lo);
        const Doubles slope = (below == above) | (hi == lo) ? above : chord;
        const Doubles start = lo * (below - slope), end = hi * (above - slope);
        taint.add(below + above + slope + start + end);
        Extremes extremes = {min(zero, min(start, end)), max(zero, max(start, end))};
        add_inside(curve, facts, a, lo, hi, slope, extremes, taint);
        const Doubles spread = extremes.most - extremes.least;
        const Doubles sizes =
            1.0 + absolute<double>(slope) + absolute<double>(above) + absolute<double>(below);
        const Doubles error = 0.5 * spread + padding(facts, spread, max(hi, -lo) * sizes);
        const Doubles shift = 0.5 * (extremes.most + extremes.least);
        taint.add(error);
        store<double>(to.slope + j, slope);
        store<double>(to.shift + j, shift);
        store<double>(to.error + j, error);
        const Doubles falls = lo * slope, rises = hi * slope;
        Doubles low = min(falls, rises) + shift - error, high = max(falls, rises) + shift + error;
        if (facts.least >= 0) {
            low = lo * below, high = hi * above;
            const Doubles pad = padding(facts, high - low, high - low);
            low -= pad, high += pad;
        }
        store<double>(lo_ + j, low);
        store<double>(hi_ + j, high);
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
