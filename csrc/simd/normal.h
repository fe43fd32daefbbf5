// The standard normal distribution, accurate in its tails.
#pragma once

#include "simd/math.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Φ(a) = ½ + a·C(a²) for |a| ≤ ¾, and
// Φ(−a) = exp(−a²/2)·s·P(2s − 1) with s = centre/(a + centre), for 0 ≤ a ≤ end; 0 beyond.
template <typename T>
struct Normal;

template <>
struct Normal<float> {
    static constexpr float centre = 4, end = 14.5f;
    static constexpr int32_t low_bits = 0xfff;
    static constexpr float centred[] = {0.3989423f, -0.06649029f, 0.009972349f, -0.001181285f,
                                        0.000102940576f};
    static constexpr float tail[] = {0.18882129f,  0.15197414f,   0.09678423f,    0.04663086f,
                                     0.015100958f, 0.0018813178f, -0.0008781378f, -0.00039248096f,
                                     4.48381e-05f, 3.2993106e-05f};
};

template <>
struct Normal<double> {
    static constexpr double centre = 6, end = 38.7;
    static constexpr int64_t low_bits = 0x7ffffff;
    static constexpr double centred[] = {
        0.39894228040143265,    -0.06649038006690416,    0.009973557009975344,
        -0.0011873282143799707, 0.00011543467756705881,  -9.444604610526363e-06,
        6.658129786651725e-07,  -4.0949376594612363e-08, 2.0052594698521833e-09};
    static constexpr double tail[] = {
        0.1295586286488937,      0.11683483826514428,     0.0948281486357979,
        0.06898393096259696,     0.04466237430690694,     0.025446705344131827,
        0.012528652612279388,    0.005164219250401594,    0.0016716367645721025,
        0.0003552675439018283,   5.4783936915746416e-06,  -3.022679307498103e-05,
        -1.0792225179055567e-05, -1.7903478097822433e-07, 1.1332774022953242e-06,
        2.993532645556022e-07,   -7.240613008399436e-08,  -5.077863936558445e-08,
        1.9354166443002815e-09,  6.338552969334442e-09,   8.499783176161742e-11,
        -4.801479315235018e-10};
};

template <typename T>
struct NormalAt {
    Vec<T> cdf, density;
};

template <typename T>
VAEFAST_INLINE NormalAt<T> normal(Vec<T> a) {
    using N = Normal<T>;
    const Vec<T> zero = {}, size = min(broadcast(N::end), absolute<T>(a));
    const Vec<T> head = (Vec<T>)((Bits<T>)size & ~N::low_bits);  // its square is exact
    const Vec<T> rest = T(-0.5) * (size - head) * (size + head);
    const Vec<T> e = value<T>(exponential<T>(T(-0.5) * head * head, rest));
    const Vec<T> about = N::centre / (size + N::centre),
                 slack = fma(about, broadcast(-N::centre), broadcast(N::centre));
    const Vec<T> s = fma(fma(-about, size, slack), about * (1 / N::centre), about);
    const Vec<T> tail = e * (s * polynomial<T>(N::tail, s + s - T(1)));
    const Vec<T> centred = fma(a, polynomial<T>(N::centred, a * a), broadcast(T(0.5)));
    const Vec<T> far = a < zero ? tail : T(1) - tail;
    return {size < broadcast(T(0.75)) ? centred : far, e * T(0.398942280401432678)};
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
