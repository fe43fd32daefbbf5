// How an op on a network runs: its memory, its teams of threads, its rows block by block.
#pragma once

#include "net/passes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// work(pass, first row, the team's own) for every block of the N rows of a call through `net`, on
// all threads: take(arena, rows of a block) lays out what each team has of its own.
template <typename T, typename Take, typename Work>
Outcome run_blocks(const Network<T>& net, int64_t N, const Call& how, bool backward, Take take,
                   Work work) {
    using Own = decltype(take(*static_cast<Arena*>(nullptr), N));
    const int64_t teams = teams_of(N, how.threads, enough_rows(net)),
                  rows = block_rows(net, backward);
    Own* own = nullptr;
    Memory memory;
    const auto space = memory.layout([&](Arena& arena) {
        own = arena.take<Own>(teams);
        for (int64_t t = 0; t < teams; ++t) {
            const Own one = take(arena, rows);
            if (arena.base) own[t] = one;
        }
        return take_workspace(arena, net, rows, teams, how.threads, backward,
                              backward && multiplies_transposed(net, N, how.threads));
    });
    if (!memory.base) return Outcome::no_memory;
    return run_workers(how, teams, [&](const Worker& worker) {
        pack_network(space.net, net, worker);
        for_each_block(worker, N, rows, [&](Range block) {
            work(Pass<T>(space, worker, block.size()), block.begin, own[worker.team]);
        });
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
