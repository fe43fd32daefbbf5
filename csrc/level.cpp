// The kernels of one instruction-set level, compiled once per level with its own flags.
// Nothing here may instantiate a std:: template: the linker could hand such an instance, compiled
// for a newer instruction set, to code that runs on an older processor.
#include "kernels.h"
#include "pgd_step.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

extern const Kernels kernels = {
    pgd_step_linf<float>,
    pgd_step_linf<double>,
    pgd_step_l2<float>,
    pgd_step_l2<double>,
};

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
