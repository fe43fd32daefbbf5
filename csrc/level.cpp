// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "kernels.h"
#include "net/activations.h"
#include "net/net_pack.h"
#include "ops/decode_distance.h"
#include "ops/displacement_centres.h"
#include "ops/leapfrog_step.h"
#include "ops/log_likelihood.h"
#include "ops/net_chain.h"
#include "ops/net_displacement_bound.h"
#include "ops/net_forward.h"
#include "ops/net_jacobian_gram.h"
#include "ops/net_jvp.h"
#include "ops/net_potential.h"
#include "ops/net_trajectory.h"
#include "ops/net_trajectory_vjp.h"
#include "ops/net_vjp.h"
#include "ops/pgd_step.h"
#include "simd/functions_for_tests.h"
#include "simd/philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

#define VAEFAST_INSTANCE(name, ...) name<T>,

template <typename T>
constexpr KernelsOf<T> kernels_of = {VAEFAST_NETWORK_OPS(VAEFAST_INSTANCE)
                                         VAEFAST_OTHER_KERNELS(VAEFAST_INSTANCE)};

extern const Kernels kernels = {
    integers,          uniform,           displacement_centres, net_displacement_bound,
    kernels_of<float>, kernels_of<double>};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
