// K cotangents times an MLP's Jacobian.
#pragma once

#include "mlp_probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome mlp_vjp(const MlpProbes<T>& call, const Call& how) {
    return run_probes(call, how, true);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
