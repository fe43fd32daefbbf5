// An MLP's Jacobian times K tangents.
#pragma once

#include "net_probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome net_jvp(const NetProbes<T>& call, const Call& how) {
    return run_probes(call, how, false);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
