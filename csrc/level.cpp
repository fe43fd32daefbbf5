// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "activations.h"
#include "evaluate.h"
#include "kernels.h"
#include "pgd_step.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
constexpr KernelsOf<T> kernels_of = {
    pgd_step_linf<T>, pgd_step_l2<T>, activate<T>, multiply_slope<T>, evaluate<T>,
};

extern const Kernels kernels = {kernels_of<float>, kernels_of<double>};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
