// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "activations.h"
#include "decode_distance.h"
#include "evaluate.h"
#include "kernels.h"
#include "leapfrog_step.h"
#include "log_likelihood.h"
#include "mlp_chain.h"
#include "mlp_forward.h"
#include "mlp_jacobian_gram.h"
#include "mlp_jvp.h"
#include "mlp_pack.h"
#include "mlp_potential.h"
#include "mlp_trajectory.h"
#include "mlp_vjp.h"
#include "pgd_step.h"
#include "philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
constexpr KernelsOf<T> kernels_of = {
    pgd_step_linf<T>,  pgd_step_l2<T>, leapfrog_step<T>,     normals<T>,         packed_bytes<T>,
    mlp_pack<T>,       mlp_forward<T>, mlp_potential<T>,     mlp_trajectory<T>,  mlp_chain<T>,
    mlp_jvp<T>,        mlp_vjp<T>,     mlp_jacobian_gram<T>, decode_distance<T>, activate<T>,
    multiply_slope<T>, evaluate<T>,    log_likelihood<T>,
};

extern const Kernels kernels = {integers, uniform, kernels_of<float>, kernels_of<double>};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
