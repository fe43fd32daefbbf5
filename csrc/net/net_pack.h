// A network's weights packed for several calls. Biases are not: every call copies them.
#pragma once

#include "net/packed_network.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// What the panels of both directions take.
template <typename T>
int64_t packed_bytes(const Network<T>& net) {
    Arena count = {};
    for (int64_t l = 0; l < net.depth; ++l)
        take_panels(count, net.layers[l], forward_panels | backward_panels);
    return count.used;
}

template <typename T>
Outcome net_pack(const NetPack<T>& call, const Call& how) {
    return run_workers(how, 1, [&](const Worker& worker) {
        Arena pack = {call.net.packed, 0};
        for (int64_t l = 0; l < call.net.depth; ++l) {
            const Layer<T>& from = call.net.layers[l];
            const Panels<T> to = take_panels(pack, from, forward_panels | backward_panels);
            if (call.directions & forward_panels)
                pack_share(to.forward, from.weight, from.row, from.column, worker);
            if (call.directions & backward_panels)
                pack_share(to.backward, from.weight, from.column, from.row, worker);
        }
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
