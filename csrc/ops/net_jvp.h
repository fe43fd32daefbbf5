// A network's Jacobian times K tangents.
#pragma once

#include "net/probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome net_jvp(const NetJvp<T>& call, const Call& how) {
    return run_probes<T>(call, how, false);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
