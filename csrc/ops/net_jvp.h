// A network's Jacobian times K tangents.
#pragma once

#include "net/probes.h"
#include "net/whole_rows.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome net_jvp(const NetJvp<T>& call, const Call& how) {
    if (!call.net.is_mlp()) return run_rows<T>(call, how, false);
    return run_probes<T>(call, how, false);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
