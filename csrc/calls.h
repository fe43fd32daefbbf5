// What the kernels are called with: addresses, sizes and choices.
#pragma once

#include <cstdint>

#include "counter.h"

namespace vaefast {

// What a row has of a parameter: a value per column, or `value` for all where `columns` is null.
template <typename T>
struct OfRow {
    const T* columns;
    T value;
};

// The parameter of row i and column j: data[i·row + j·column], where column is 0 or 1; or `value`
// everywhere where data is null.
template <typename T>
struct Parameter {
    const T* data;
    int64_t row, column;
    T value;

    bool per_element() const { return column != 0; }
    // From column j on.
    OfRow<T> of_row(int64_t i, int64_t j = 0) const {
        if (!data) return {nullptr, value};
        if (!column) return {nullptr, data[i * row]};
        return {data + i * row + j, T(0)};
    }
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
    Parameter<T> alpha, eps, low, high;  // per element: any of them for l∞, low and high for l2
    double norm_eps;
    bool clip_first;  // to the box, then project to the ball

    bool per_element() const {
        return alpha.per_element() || eps.per_element() || low.per_element() || high.per_element();
    }
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
    clamp,
    hardswish,
    mish,
    selu,
};

// Of an activation; zeros where it takes none.
template <typename T>
struct Parameters {
    T first, second;
};

// The Gaussian's standard deviation: of pixel j of image b it is data[b·row + j·column], where
// column is 0 or 1. Null for the other likelihoods.
template <typename T>
struct Std {
    const T* data;
    int64_t row, column;

    bool per_pixel() const { return column != 0; }
    const T* at(int64_t b, int64_t j = 0) const { return data + b * row + j * column; }
};

// In the order of vaefast.types.LIKELIHOODS.
enum class Likelihood : int { bernoulli, gaussian, continuous_bernoulli, clamped_bernoulli };

enum class Outcome : int { done, interrupted, no_memory };

// One axis of a layer with pixels. Input i of the side with more pixels (the output of a transposed
// convolution) meets tap t of output o of the other where i = o·stride + t·dilation − padding.
struct AxisSizes {
    int64_t in, out, kernel, stride, padding, dilation;
};

// A convolution's channels and pixels; pooling and upsampling are convolutions of one channel each.
struct Pixels {
    bool transposed;
    int64_t in_channels, out_channels, groups;
    AxisSizes y, x;
    double weight;  // of all taps, where the layer has no weights
};

constexpr int64_t NO_RESIDUAL = -2;

// h = φ(W x + b); element [j, k] of W lies at weight[j·row + k·column], bias may be null. With
// pixels W is a convolution: weight [channels with fewer pixels, others / groups, y, x],
// contiguous.
template <typename T>
struct Layer {
    const T* weight;
    int64_t row, column;
    const T* bias;  // of a convolution one per channel
    int64_t outputs, inputs;
    Activation activation;
    Parameters<T> parameters;
    int64_t residual = NO_RESIDUAL;  // layer whose output is added before φ, −1: the input's
    const Pixels* pixels = nullptr;
};

// What a pack of weights holds: the panels that multiply by W, and those by Wᵀ.
enum Directions : int { forward_panels = 1, backward_panels = 2 };

template <typename T>
struct Network {
    const Layer<T>* layers;
    int64_t depth;
    char* packed = nullptr;  // weights packed before the call, of all directions' size; null: none
    int directions = 0;      // those it holds

    int64_t inputs() const { return layers[0].inputs; }
    int64_t outputs() const { return layers[depth - 1].outputs; }
    bool is_mlp() const {
        for (int64_t l = 0; l < depth; ++l)
            if (layers[l].pixels || layers[l].residual != NO_RESIDUAL) return false;
        return true;
    }
};

struct Call {
    int threads;
    bool (*interrupted)();  // what the calling thread asks every 50 ms
};

template <typename T>
struct NetPack {
    Network<T> net;
    int directions;  // of its pack, to fill
};

template <typename T>
struct NetForward {
    Rows<T> out;      // [N, D]
    Rows<const T> z;  // [N, d]
    int64_t N;
    Network<T> net;
    Rows<T> tape;  // [N, tape_width], filled with the slopes; null: they are not kept
};

// The posterior p(z | x) of rows n of z, each with its image x[n / chains].
template <typename T>
struct Target {
    Rows<const T> x;  // [B, D]
    int64_t chains;
    Network<T> net;
    Likelihood likelihood;
    Std<T> std;
};

template <typename T>
struct NetPotential {
    double* U;        // [N]
    Rows<T> grad;     // [N, d]
    Rows<const T> z;  // [N, d]
    int64_t N;
    Target<T> target;
};

// S [B, d, d], M⁻¹ = S Sᵀ, by rows and by columns, for momenta Sᵀp; null: M is diagonal.
template <typename T>
struct Root {
    const T *rows, *columns;
};

template <typename T>
struct NetTrajectory {
    Rows<T> z_end, p_end, grad_end;  // [N, d]
    double* U;                       // [N]
    Rows<const T> z, p, grad;        // [N, d]
    const T* step;                   // [N]
    Rows<const T> inv_mass;          // [B, d], null for unit mass
    Root<T> root;
    int64_t N, leapfrog;
    Target<T> target;
};

template <typename T>
struct NetTrajectoryVjp {
    Rows<T> into_z, into_p;    // [N, d]
    Rows<T> into_x;            // [B, D], zeros at the start; may be `shares` with one chain
    Rows<T> shares;            // [N, D], what each row adds to its image's
    Rows<const T> z, p;        // [N, d], the start
    Rows<const T> upstream;    // [N, d], of the end's z
    Rows<const T> upstream_p;  // [N, d], of its p; null for zeros
    const bool* accepted;      // [N], null for all
    const T* step;             // [N]
    Rows<const T> inv_mass;    // [B, d], null for unit mass
    int64_t N, leapfrog;
    Target<T> target;
};

template <typename T>
struct NetChain {
    Rows<T> z, grad;                // [N, d]: start and end
    double* U;                      // [N], nats: start and end
    int64_t *accepted, *divergent;  // [N]
    T* draws;                       // [N, kept, d]
    double* energies;               // [N, kept]
    const T* step;                  // [B]
    Rows<const T> inv_mass;         // [B, d], null for unit mass
    Root<T> root;
    const int64_t* index;  // [B]
    int64_t N, leapfrog, first_step, steps, thin, kept;
    double jitter;
    uint64_t seed;
    Target<T> target;
};

// K probes for each of B inputs: their products with the Jacobian J, and the squared norms of
// those. With a tape y stays as it is, K is 1 and the products are wanted.
template <typename T>
struct NetProbes {
    Rows<T> y;             // [B, d]
    double* sq;            // [B, K]
    Rows<T> products;      // [B·K, ·], null where they are not wanted
    Rows<const T> x;       // [B, D]
    Rows<const T> probes;  // [K, ·] where all inputs share them, else [B·K, ·]
    bool shared;
    int64_t B, K;
    Network<T> net;
    Rows<T> tape;  // [B, tape_width] of net_forward at x, only read; null: pass forward
};
template <typename T>
struct NetJvp : NetProbes<T> {};  // J v_k
template <typename T>
struct NetVjp : NetProbes<T> {};  // Jᵀu_k

// S J Jᵀ S with S = diag(inv_std).
template <typename T>
struct NetJacobianGram {
    T* out;                 // [B, d, d]
    Rows<const T> x;        // [B, D]
    Rows<const T> inv_std;  // [B, d], null for ones
    int64_t B;
    Network<T> net;
};

template <typename T>
struct DecodeDistance {
    int64_t* hits;            // [B], zeros at the start
    Rows<const T> mean, std;  // [B, d]
    Rows<const T> centre;     // [B, D]
    const T* r;               // [B]
    const int64_t* index;     // [B]
    int64_t B, first_sample, samples;
    uint64_t seed;
    Network<T> net;
};

template <typename T>
struct LeapfrogStep {
    Rows<T> z, p;                  // [N, d]
    Rows<const T> grad, inv_mass;  // [N, d]; [B, d] or null for one
    const T* step;                 // [N]
    int64_t d, chains;             // row n belongs to inv_mass[n / chains]
    T kick;
    bool drift;
};

template <typename T>
struct LogLikelihood {
    Rows<const T> out, x;  // [N, D], [B, D]: row n belongs to x[n / chains]
    double* logp;          // [N]
    Rows<T> score;         // [N, D]
    int64_t D, chains;
    Likelihood likelihood;
    Std<T> std;
};

// The functions of math.h and normal.h, for the tests.
enum class Function : int { exp, expm1, log, log1p_unit, tanh, sigmoid, softplus, normal_cdf };

}  // namespace vaefast
