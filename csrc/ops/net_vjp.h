// K cotangents times a network's Jacobian.
#pragma once

#include "net/probes.h"
#include "net/whole_rows.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
Outcome net_vjp(const NetVjp<T>& call, const Call& how) {
    if (!call.net.is_mlp()) return run_rows<T>(call, how, true);
    return run_probes<T>(call, how, true);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
