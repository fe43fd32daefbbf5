// Activations as bounds of a displacement see them: (φ(a+u) − φ(a))/u without a quotient that
// cancels, φ', and where φ' can equal a slope. vaefast/functional/secants.py says the same.
#pragma once

#include "net/activations.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

using Doubles = Vec<double>;

// Candidates for the extremes of φ(a+u) − φ(a) − cu between the ends; NaN where there is none.
struct Points {
    Doubles at[3];
    int count;
};

inline bool any(Bits<double> mask) {
    int64_t bits = 0;
    for (int64_t l = 0; l < width<double>; ++l) bits |= mask[l];
    return bits != 0;
}

// The secant of exp, by the larger of both ends.
VAEFAST_INLINE Doubles exponential_secant(Doubles a, Doubles u) {
    const Doubles top = max(a, a + u), size = absolute<double>(u), one = broadcast(1.0);
    return exp<double>(top) * (size == Doubles{} ? one : -expm1<double>(-size) / size);
}

// sinh(u)/u / (cosh a · cosh(a+u)), the exponents subtracted before they are taken.
VAEFAST_INLINE Doubles tanh_secant(Doubles a, Doubles u) {
    const Doubles zero = {}, b = a + u, size = absolute<double>(u);
    const Doubles x = absolute<double>(a), y = absolute<double>(b);
    const Doubles common = ((a > zero) == (b > zero)) ? min(x, y) : zero;
    const Doubles halves =
        (1.0 + exp_of_minus<double>(x + x)) * (1.0 + exp_of_minus<double>(y + y));
    const Doubles rise = size == zero ? zero + 2.0 : -expm1<double>(-2.0 * size) / size;
    return 2.0 * exp_of_minus<double>(common + common) * rise / halves;
}

VAEFAST_INLINE Doubles sigmoid_secant(Doubles a, Doubles u) {
    return 0.25 * tanh_secant(0.5 * a, 0.5 * u);
}

// v ≥ 0 with 1/cosh²(v) = c.
VAEFAST_INLINE Doubles bell(Doubles c) { return log<double>((1.0 + sqrt(1.0 - c)) / sqrt(c)); }

// Relu, leaky relu, and the relu of a pair's difference that MaxMin is.
struct ReluCurve {
    double low;
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const {
        return a > Doubles{} ? broadcast(1.0) : broadcast(low);
    }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const Doubles zero = {}, b = a + u, one = broadcast(1.0);
        const Doubles above = max(zero, max(a, b)) - max(zero, min(a, b));
        const auto either = (a > zero) | (b > zero), both = (a > zero) & (b > zero);
        const Doubles share = both ? one : either ? above / absolute<double>(u) : zero;
        return low + (1.0 - low) * share;
    }
    VAEFAST_INLINE Points points(Doubles) const { return {{Doubles{}}, 1}; }
};

struct ClampCurve {
    double low, high;
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const {
        return clamp_slope<double>(a, broadcast(low), broadcast(high)).slope;
    }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const Doubles zero = {}, one = broadcast(1.0), b = a + u;
        const auto value = [&](Doubles v) VAEFAST_FLAT {
            return min(broadcast(high), max(broadcast(low), v));
        };
        const Doubles apart = (value(b) - value(a)) / u;
        const auto inside = (min(a, b) >= low) & (max(a, b) <= high);
        const Doubles share = inside ? one : u == zero ? slope(a) : apart;
        return min(one, max(zero, share));
    }
    VAEFAST_INLINE Points points(Doubles) const { return {{broadcast(low), broadcast(high)}, 2}; }
};

// Also selu.
struct EluCurve {
    double alpha, scale;
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const {
        return a > Doubles{} ? broadcast(scale) : scale * alpha * exp<double>(min(Doubles{}, a));
    }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const Doubles zero = {}, one = broadcast(1.0), b = a + u, low = min(a, b), high = max(a, b);
        const Doubles fall = alpha * expm1<double>(min(zero, low));
        const Doubles both = (max(zero, high) - fall) / absolute<double>(u);
        const Doubles below = alpha * exponential_secant(min(zero, a), high > zero ? zero : u);
        return scale * (low >= zero ? one : high > zero ? both : below);
    }
    VAEFAST_INLINE Points points(Doubles c) const {
        return {{Doubles{}, min(Doubles{}, log<double>(c / (scale * alpha)))}, 2};
    }
};

struct ExpHalfCurve {
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return 0.5 * exp<double>(0.5 * a); }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        return 0.5 * exponential_secant(0.5 * a, 0.5 * u);
    }
    VAEFAST_INLINE Points points(Doubles c) const { return {{2.0 * log<double>(c + c)}, 1}; }
};

struct TanhCurve {
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return tanh_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const { return tanh_secant(a, u); }
    VAEFAST_INLINE Points points(Doubles c) const {
        const Doubles v = bell(c);
        return {{v, -v}, 2};
    }
};

struct SigmoidCurve {
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return sigmoid_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const { return sigmoid_secant(a, u); }
    VAEFAST_INLINE Points points(Doubles c) const {
        const Doubles v = 2.0 * bell(4.0 * c);
        return {{v, -v}, 2};
    }
};

struct SoftplusCurve {
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return sigmoid<double>(a); }
    // −log(σ(−b) + σ(b)e^−w)/w from the upper end b, w = |u|.
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const Doubles zero = {}, b = max(a, a + u), size = absolute<double>(u);
        const Doubles small = sigmoid<double>(b) * expm1<double>(-size);
        const Doubles x = -softplus<double>(b), y = -softplus<double>(-b) - size;
        const Doubles far =
            max(x, y) + log1p_unit<double>(exp_of_minus<double>(absolute<double>(x - y)));
        const auto near = small > broadcast(-0.29);
        const Doubles rise = near ? log_near_one(near ? small : zero, zero) : far;
        return size == zero ? slope(a) : -rise / size;
    }
    VAEFAST_INLINE Points points(Doubles c) const { return {{log<double>(c / (1.0 - c))}, 1}; }
};

struct HardswishCurve {
    static constexpr bool crosses = false;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return hardswish_slope<double>(a).slope; }
    // φ(a) = a·(clamp(a) + 3)/6
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const Doubles three = broadcast(3.0), gate = min(three, max(-three, a + u));
        return ((gate + three) + a * ClampCurve{-3, 3}.secant(a, u)) / 6.0;
    }
    VAEFAST_INLINE Points points(Doubles c) const {
        const Doubles three = broadcast(3.0);
        return {{-three, three, min(three, max(-three, 3.0 * c - 1.5))}, 3};
    }
};

struct SiluCurve {
    static constexpr bool crosses = true;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return silu_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        return fma(a, sigmoid_secant(a, u), sigmoid<double>(a + u));
    }
};

// a·gate(a): gate(b) + a·(gate(b) − gate(a))/u, near u = 0 from the gate's rate by six nodes.
template <typename Gate>
VAEFAST_INLINE Doubles gated_secant(Gate gate, Doubles a, Doubles u) {
    constexpr double nodes[] = {0.03376524289842399, 0.16939530676686775, 0.3806904069584015};
    constexpr double weights[] = {0.08566224618958517, 0.1803807865240693, 0.23395696728634552};
    Doubles mean = {};
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i)
        mean += weights[i] * (gate(a + nodes[i] * u).rate + gate(a + (1.0 - nodes[i]) * u).rate);
    const Doubles top = gate(a + u).value;
    const auto near = absolute<double>(u) <= broadcast(0.25);
    return fma(a, near ? mean : (top - gate(a).value) / u, top);
}

struct GeluCurve {
    static constexpr bool crosses = true;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return gelu_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const auto gate = [](Doubles v) VAEFAST_FLAT {
            const NormalAt<double> at = normal<double>(v);
            return MishGate<double>{at.cdf, at.density};
        };
        return gated_secant(gate, a, u);
    }
};

struct GeluTanhCurve {
    static constexpr bool crosses = true;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return gelu_tanh_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        const auto gate = [](Doubles v) VAEFAST_FLAT {
            constexpr double c = 1.59576912160573071, k = 0.044715;
            const Doubles end = broadcast(64.0), w = min(end, max(-end, v)), square = w * w;
            const Doubles one = broadcast(1.0);
            const Slope<double> s = sigmoid_slope<double>(c * w * fma(square, broadcast(k), one));
            return MishGate<double>{s.value, s.slope * c * fma(square, broadcast(3 * k), one)};
        };
        return gated_secant(gate, a, u);
    }
};

struct MishCurve {
    static constexpr bool crosses = true;
    VAEFAST_INLINE Doubles slope(Doubles a) const { return mish_slope<double>(a).slope; }
    VAEFAST_INLINE Doubles secant(Doubles a, Doubles u) const {
        return gated_secant([](Doubles v) VAEFAST_FLAT { return mish_gate<double>(v); }, a, u);
    }
};

// run(curve) with the curve of an activation other than the identity.
template <typename Run>
void with_curve(Activation kind, Parameters<double> parameters, Run run) {
    const double p = parameters.first, q = parameters.second;
    switch (kind) {
        case Activation::identity:
            return;
        case Activation::relu:
        case Activation::maxmin:
            return run(ReluCurve{0});
        case Activation::leaky_relu:
            return run(ReluCurve{p});
        case Activation::elu:
            return run(EluCurve{p, 1});
        case Activation::selu:
            return run(EluCurve{1.6732632423543772848, 1.0507009873554804934});
        case Activation::tanh:
            return run(TanhCurve{});
        case Activation::sigmoid:
            return run(SigmoidCurve{});
        case Activation::softplus:
            return run(SoftplusCurve{});
        case Activation::silu:
            return run(SiluCurve{});
        case Activation::gelu:
            return run(GeluCurve{});
        case Activation::gelu_tanh:
            return run(GeluTanhCurve{});
        case Activation::exp_half:
            return run(ExpHalfCurve{});
        case Activation::clamp:
            return run(ClampCurve{p, q});
        case Activation::hardswish:
            return run(HardswishCurve{});
        case Activation::mish:
            return run(MishCurve{});
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
