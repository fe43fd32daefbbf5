// The table of kernels that every instruction-set level provides.
#pragma once

#include <cstdint>

namespace vaefast {

// A value per row, or one value for all rows where `rows` is null.
template <typename T>
struct PerRow {
    const T* rows;
    T value;
    T operator[](int64_t i) const { return rows ? rows[i] : value; }
};

// A matrix [B, D] whose rows are contiguous, `stride` elements apart.
template <typename T>
struct Rows {
    T* data;
    int64_t stride;
    T* operator[](int64_t i) const { return data + i * stride; }
};

template <typename T>
struct PgdStep {
    Rows<T> out;
    Rows<const T> x_adv, grad, x;
    int64_t D;
    PerRow<T> alpha, eps, low, high;
    double norm_eps;
};

enum class Activation : int {
    identity,
    relu,
    leaky_relu,
    elu,
    tanh,
    sigmoid,
    softplus,
    silu,
    gelu,
    gelu_tanh,
    exp_half,
    maxmin,
};

// The functions of math.h and normal.h, for the tests.
enum class Function : int { exp, expm1, log, log1p_unit, tanh, sigmoid, softplus, normal_cdf };

template <typename T>
struct KernelsOf {
    // elements [begin, end) of the flattened [B, D]
    void (*pgd_step_linf)(const PgdStep<T>&, int64_t begin, int64_t end);
    // rows [begin, end)
    void (*pgd_step_l2)(const PgdStep<T>&, int64_t begin, int64_t end);
    // of `count` elements, a multiple of every level's vector width; h may be a, slope null
    void (*activate)(Activation, T parameter, const T* a, T* h, T* slope, int64_t count);
    void (*multiply_slope)(Activation, const T* slope, T* t, int64_t count);
    // of any `count`
    void (*evaluate)(Function, const T* in, T* out, int64_t count);
};

struct Kernels {
    KernelsOf<float> f32;
    KernelsOf<double> f64;
};

template <typename T>
const KernelsOf<T>& of(const Kernels& kernels) {
    if constexpr (sizeof(T) == 8)
        return kernels.f64;
    else
        return kernels.f32;
}

}  // namespace vaefast
