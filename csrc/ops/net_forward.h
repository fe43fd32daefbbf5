// A network's output, epilogue included: blocks of rows whose activations stay in cache.
#pragma once

#include "net/passes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Zeros behind the slopes of row r, so that the bits of a caller's tape are the row's alone.
template <typename T>
void end_slopes(const Pass<T>& pass, int64_t r) {
    for (int64_t l = 0; l < pass.net.depth; ++l) {
        const int64_t size = pass.net[l].out.size(), end = padded<T>(size);
        const SlopesAt<T> at = pass.slopes(l, r, 0);
        if (at.numbers) fill(at.numbers + size, T(0), end - size);
        if (at.bytes) fill(at.bytes + size, int8_t(0), padded_bytes(end) - size);
    }
}

template <typename T>
void forward_block(const NetForward<T>& call, const Pass<T>& pass, int64_t first) {
    const int64_t last = pass.net.depth - 1;
    const T* x = call.z[first];
    forward_hidden(pass, x, call.z.stride, last);
    if (last) x = pass.tape.post[last - 1];
    const int64_t stride = last ? pass.tape.stride[last - 1] : call.z.stride;
    pass.advance(x, stride, pass.net[last], [&](const Tile<T>& tile) {
        for (int64_t r = 0; r < pass.rows; ++r) {
            activate_row(pass, last, tile, r, tile[r], pass.slopes(last, r, tile.first));
            std::memcpy(call.out[first + r] + tile.first, tile[r], tile.count * sizeof(T));
        }
    });
    pass.worker.sync();
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t n = first + own.begin; n < first + own.end; ++n) {
        if (!all_finite(call.z[n], call.net.inputs()))
            fill(call.out[n], T(NAN), call.net.outputs());
        if (pass.kept.data) end_slopes(pass, n - first);
    }
}

template <typename T>
Outcome net_forward(const NetForward<T>& call, const Call& how) {
    const int64_t teams = teams_of(call.N, how.threads, enough_rows(call.net)),
                  rows = block_rows(call.net, false);
    Memory memory;
    const auto work = memory.layout([&](Arena& arena) {
        return take_workspace(arena, call.net, rows, teams, how.threads, false);
    });
    if (!memory.base) return Outcome::no_memory;
    return run_workers(how, teams, [&](const Worker& worker) {
        pack_network(work.net, call.net, worker);
        for_each_block(worker, call.N, rows, [&](Range block) {
            const Rows<T> kept = rows_from(call.tape, block.begin);
            forward_block(call, Pass<T>(work, worker, block.size(), kept), block.begin);
        });
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
