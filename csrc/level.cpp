// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "activations.h"
#include "decode_distance.h"
#include "evaluate.h"
#include "kernels.h"
#include "leapfrog_step.h"
#include "log_likelihood.h"
#include "net_chain.h"
#include "net_forward.h"
#include "net_jacobian_gram.h"
#include "net_jvp.h"
#include "net_pack.h"
#include "net_potential.h"
#include "net_trajectory.h"
#include "net_vjp.h"
#include "pgd_step.h"
#include "philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
constexpr KernelsOf<T> kernels_of = {
    pgd_step_linf<T>,  pgd_step_l2<T>, leapfrog_step<T>,     normals<T>,         packed_bytes<T>,
    net_pack<T>,       net_forward<T>, net_potential<T>,     net_trajectory<T>,  net_chain<T>,
    net_jvp<T>,        net_vjp<T>,     net_jacobian_gram<T>, decode_distance<T>, activate<T>,
    multiply_slope<T>, evaluate<T>,    log_likelihood<T>,
};

extern const Kernels kernels = {integers, uniform, kernels_of<float>, kernels_of<double>};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
