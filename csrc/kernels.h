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
struct LeapfrogStep {
    Rows<T> z, p;                  // [N, d]
    Rows<const T> grad, inv_mass;  // [N, d]; [B, d] or null for one
    const T* step;                 // [N]
    int64_t d, chains;             // row n belongs to inv_mass[n / chains]
    T kick;
    bool drift;
};

// In the order of vaefast.types.LIKELIHOODS.
enum class Likelihood : int { bernoulli, gaussian, continuous_bernoulli, clamped_bernoulli };

template <typename T>
struct LogLikelihood {
    Rows<const T> out, x;  // [N, D], [B, D]: row n belongs to x[n / chains]
    double* logp;          // [N]
    Rows<T> score;         // [N, D]
    int64_t D, chains;
    Likelihood likelihood;
    double obs_std;
};

// What a random number is for: vaefast.philox.Use.
enum class Use : uint32_t {
    momentum = 1,
    accept,
    jitter,
    latent,
    initial,
    start,
    radius,
    damage,
    fresh,
    probe,
    posterior,
    margin,
};

// Where random numbers come from, but for the element; index below 2⁴⁴, lane below 2¹².
struct Counter {
    uint64_t seed;
    int64_t index;
    uint32_t step, lane;
    Use use;
};

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
    // rows [begin, end)
    void (*leapfrog_step)(const LeapfrogStep<T>&, int64_t begin, int64_t end);
    void (*log_likelihood)(const LogLikelihood<T>&, int64_t begin, int64_t end);
    // elements [0, count)
    void (*normals)(const Counter&, T* out, int64_t count);
};

struct Kernels {
    // elements [first, first + count)
    void (*integers)(const Counter&, int64_t first, uint32_t* out, int64_t count);
    double (*uniform)(const Counter&, int64_t element);
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
