// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "activations.h"
#include "decode_distance.h"
#include "kernels.h"
#include "leapfrog_step.h"
#include "log_likelihood.h"
#include "mlp_chain.h"
#include "mlp_forward.h"
#include "mlp_potential.h"
#include "mlp_trajectory.h"
#include "pgd_step.h"
#include "philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
void evaluate(Function function, const T* in, T* out, int64_t count) {
    for_each_vector<T>(count, [=](int64_t j, int64_t left) {
        const Vec<T> v = load(in + j, left);
        switch (function) {
            case Function::exp:
                return store<T>(out + j, exp<T>(v), left);
            case Function::expm1:
                return store<T>(out + j, expm1<T>(v), left);
            case Function::log:
                return store<T>(out + j, log<T>(v), left);
            case Function::log1p_unit:
                return store<T>(out + j, log1p_unit<T>(v), left);
            case Function::tanh:
                return store<T>(out + j, tanh<T>(v), left);
            case Function::sigmoid:
                return store<T>(out + j, sigmoid<T>(v), left);
            case Function::softplus:
                return store<T>(out + j, softplus<T>(v), left);
            case Function::normal_cdf:
                return store<T>(out + j, normal<T>(v).cdf, left);
        }
    });
}

template <typename T>
constexpr KernelsOf<T> kernels_of = {
    pgd_step_linf<T>,
    pgd_step_l2<T>,
    leapfrog_step<T>,
    normals<T>,
    mlp_forward<T>,
    mlp_potential<T>,
    mlp_trajectory<T>,
    mlp_chain<T>,
    decode_distance<T>,
    activate<T>,
    multiply_slope<T>,
    evaluate<T>,
    log_likelihood<T>,
};

extern const Kernels kernels = {integers, uniform, kernels_of<float>, kernels_of<double>};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
