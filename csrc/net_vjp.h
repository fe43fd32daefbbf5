// K cotangents times an MLP's Jacobian.
#pragma once

#include "net_probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome net_vjp(const NetProbes<T>& call, const Call& how) {
    return run_probes(call, how, true);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
