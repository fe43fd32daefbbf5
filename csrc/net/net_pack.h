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
        take_panels(count, net, l, forward_panels | backward_panels);
    return count.used;
}

template <typename T>
Outcome net_pack(const NetPack<T>& call, const Call& how) {
    return run_workers(how, 1, [&](const Worker& worker) {
        Arena pack = {call.net.packed, 0};
        for (int64_t l = 0; l < call.net.depth; ++l) {
            Panels<T> to = take_panels(pack, call.net, l, forward_panels | backward_panels);
            if (!(call.directions & forward_panels)) to.forward.data = to.window_forward = nullptr;
            if (!(call.directions & backward_panels)) to.backward.data = to.window_back = nullptr;
            if (!call.net.layers[l].pixels) {
                pack_layer(to, call.net, l, worker);
                continue;
            }
            for (int back = 0; back < 2; ++back) {
                Window<T> window = window_of(call.net, l, back);
                window.weights = back ? to.window_back : to.window_forward;
                pack_window(window, worker);
            }
        }
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
