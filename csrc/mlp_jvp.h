// An MLP's Jacobian times K tangents.
#pragma once

#include "mlp_probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome mlp_jvp(const MlpProbes<T>& call, const Call& how) {
    return run_probes(call, how, false);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
