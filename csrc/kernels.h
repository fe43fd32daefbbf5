// The table of kernels that every instruction-set level provides. One list names them: it yields
// the table, each level's instance and the binding, so that a name finds its own kernel everywhere.
#pragma once

#include "displacement.h"

namespace vaefast {

// OP(name, Task): the ops on networks, Outcome name(const Task<T>&, const Call&). Each has a task
// of its own type, so that no other op's kernel can take its place.
#define VAEFAST_NETWORK_OPS(OP)              \
    OP(net_pack, NetPack)                    \
    OP(net_forward, NetForward)              \
    OP(net_potential, NetPotential)          \
    OP(net_trajectory, NetTrajectory)        \
    OP(net_trajectory_vjp, NetTrajectoryVjp) \
    OP(net_chain, NetChain)                  \
    OP(net_jvp, NetJvp)                      \
    OP(net_vjp, NetVjp)                      \
    OP(net_jacobian_gram, NetJacobianGram)   \
    OP(decode_distance, DecodeDistance)

// KERNEL(name, result, arguments...): all others.
//   pgd_step_linf: elements [begin, end) of the flattened [B, D]
//   pgd_step_l2, leapfrog_step, log_likelihood: rows [begin, end)
//   normals: elements [0, count)
//   activate, multiply_slope: `count` elements, a multiple of every level's vector width; h may
//   be a, slope null; evaluate: any `count`
#define VAEFAST_OTHER_KERNELS(KERNEL)                                                            \
    KERNEL(pgd_step_linf, void, const PgdStep<T>&, int64_t begin, int64_t end)                   \
    KERNEL(pgd_step_l2, void, const PgdStep<T>&, int64_t begin, int64_t end)                     \
    KERNEL(leapfrog_step, void, const LeapfrogStep<T>&, int64_t begin, int64_t end)              \
    KERNEL(log_likelihood, void, const LogLikelihood<T>&, int64_t begin, int64_t end)            \
    KERNEL(normals, void, const Counter&, T* out, int64_t count)                                 \
    KERNEL(packed_bytes, int64_t, const Network<T>&)                                             \
    KERNEL(tape_width, int64_t, const Network<T>&)                                               \
    KERNEL(activate, void, Activation, Parameters<T>, const T* a, T* h, T* slope, int64_t count) \
    KERNEL(multiply_slope, void, Activation, const T* slope, T* t, int64_t count)                \
    KERNEL(evaluate, void, Function, const T* in, T* out, int64_t count)

#define VAEFAST_OP_POINTER(name, Task) Outcome (*name)(const Task<T>&, const Call&);
#define VAEFAST_POINTER(name, result, ...) result (*name)(__VA_ARGS__);

template <typename T>
struct KernelsOf {
    VAEFAST_NETWORK_OPS(VAEFAST_OP_POINTER)
    VAEFAST_OTHER_KERNELS(VAEFAST_POINTER)
};

#undef VAEFAST_OP_POINTER
#undef VAEFAST_POINTER

struct Kernels {
    // elements [first, first + count)
    void (*integers)(const Counter&, int64_t first, uint32_t* out, int64_t count);
    double (*uniform)(const Counter&, int64_t element);
    // in float64, whatever the rows' dtype
    Outcome (*displacement_centres)(const DisplacementCentres&, const Call&);
    Outcome (*net_displacement_bound)(const NetDisplacementBound&, const Call&);
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
