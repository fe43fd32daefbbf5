// K rows per input through a network of any layers: tangents forward, cotangents back, each through
// all products beside one pass of its input.
#pragma once

#include "net/passes.h"
#include "net/probes.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// A call on its way.
template <typename T>
struct WholeRows {
    Workspace<T> work;
    int64_t K;          // rows of an input
    int64_t rows;       // that pass together
    int64_t inputs;     // whose slopes a block keeps
    bool* nonfinite;    // [B], whether x or a row of it holds NaN or infinity
    Rows<T> tape = {};  // [B, tape_width], slopes that the caller keeps; null: the workspace's
};

template <typename T>
WholeRows<T> take_whole_rows(Arena& arena, const Network<T>& net, int64_t B, int64_t K,
                             int64_t teams, int threads) {
    const int64_t rows = block_rows(net, true), inputs = rows / K > 1 ? rows / K : 1;
    const int64_t most = rows > inputs + 1 ? rows : inputs + 1;  // a block may start in an input
    return {take_workspace(arena, net, most, teams, threads, true), K, rows, inputs,
            arena.take<bool>(B)};
}

// Layers [0, depth) of the pass on inputs x with their slopes, where the caller does not keep them.
template <typename T>
void pass_whole(const Pass<T>& pass, Rows<const T> x, int64_t features, bool* nonfinite) {
    check_inputs(pass, x, features, nonfinite);
    if (!pass.kept.data) forward_hidden(pass, x.data, x.stride, pass.net.depth);
}

// Tangents of the input in up[1] go forward: epilogue(tile) gets those of the output.
template <typename T, typename Epilogue>
void forward_to_output(const Pass<T>& pass, const ProbeRows& at, Epilogue epilogue) {
    const Tape<T>& tape = pass.tape;
    const int64_t last = pass.net.depth - 1;
    const auto skip = [&](int64_t k, int64_t r) {
        return tape.skips[k + 1] ? tape.skips[k + 1] + r * padded<T>(pass.net.side(k).size())
                                 : nullptr;
    };
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end && skip(-1, r); ++r)
        copy(skip(-1, r), tape.up[1] + r * tape.up_stride, pass.net.in.size());
    pass.worker.sync();
    for (int64_t l = 0; l <= last; ++l) {
        const PackedLayer<T>& layer = pass.net[l];
        T* to = tape.up[l % 2];
        pass.advance(tape.up[1 - l % 2], tape.up_stride, layer, [&](const Tile<T>& tile) {
            at.each({0, pass.rows}, [&](int64_t r, int64_t b, int64_t) {
                if (layer.residual != NO_RESIDUAL)
                    add_places(layer.out, tile.first, tile.count, pass.net.side(layer.residual),
                               skip(layer.residual, r), tile[r]);
                multiply_slope_of(pass, l, b, tile.first, tile[r], tile[r], tile.padded);
                if (l == last) return;
                copy(to + r * tape.up_stride + tile.first, tile[r], tile.padded);
                if (skip(l, r)) copy(skip(l, r) + tile.first, tile[r], tile.padded);
            });
            if (l == last) epilogue(tile);
        });
        pass.worker.sync();
    }
}

// The part of `block` that a pass takes, row by row of the call: rows [n, ...), at which inputs.
template <typename T, typename Body>
void for_each_pass(const WholeRows<T>& own, const Worker& worker, Range block, Body body) {
    const int64_t begin = block.begin / own.K;
    for_each_piece(worker, block.size(), own.rows, [&](Range piece) {
        const int64_t n = block.begin + piece.begin;
        body(Pass<T>(own.work, worker, piece.size(), rows_from(own.tape, begin)),
             ProbeRows{n - begin * own.K, own.K}, n);
    });
}

// Rows [n, ...) of the probes into up[1], or as cotangents of the last pre-activations into up[0].
template <typename T>
void load_rows(const NetProbes<T>& call, const Pass<T>& pass, const ProbeRows& at, int64_t n,
               bool back, bool* nonfinite) {
    const int64_t last = pass.net.depth - 1;
    const int64_t width = back ? call.net.outputs() : call.net.inputs();
    const Tape<T>& tape = pass.tape;
    at.each(share(pass.rows, pass.worker.rank, pass.worker.ranks),
            [&](int64_t r, int64_t b, int64_t k) {
                const T* probe = call.probes[call.shared ? k : n + r];
                if (!all_finite(probe, width)) set_flag(nonfinite + (n + r) / at.K);
                T* to = tape.up[back ? 0 : 1] + r * tape.up_stride;
                copy_padded(to, probe, width);
                if (back)
                    multiply_slope_of(pass, last, b, 0, to, to, panels_of<T>(width) * PANEL<T>);
            });
    pass.worker.sync();
}

// Rows [n, ...) of a call of net_jvp or net_vjp; `shares` [rows, panels] belong to the team.
template <typename T>
void probe_rows_whole(const NetProbes<T>& call, const Pass<T>& pass, const ProbeRows& at, int64_t n,
                      bool back, bool* nonfinite, double* shares) {
    const int64_t width = back ? call.net.inputs() : call.net.outputs();
    const int64_t panels = panels_of<T>(width);
    load_rows(call, pass, at, n, back, nonfinite);
    const auto epilogue = [&](const Tile<T>& tile) {
        for (int64_t r = 0; call.products.data && r < pass.rows; ++r)
            copy(call.products[n + r] + tile.first, tile[r], tile.count);
        square_rows(tile, pass.rows, shares, panels);
    };
    if (back)
        backward_to_input(pass, at, epilogue);
    else
        forward_to_output(pass, at, epilogue);
    pass.worker.sync();
    sum_shares(shares, panels, share(pass.rows, pass.worker.rank, pass.worker.ranks), call.sq + n);
}

template <typename T>
Outcome run_rows(const NetProbes<T>& call, const Call& how, bool back) {
    const Network<T>& net = call.net;
    const int64_t K = call.K ? call.K : 1, width = back ? net.inputs() : net.outputs();
    const int64_t teams = teams_of(call.B * K, how.threads, enough_rows(net));
    double* shares = nullptr;
    Memory memory;
    const auto own = memory.layout([&](Arena& arena) {
        auto rows = take_whole_rows(arena, net, call.B, K, teams, how.threads);
        rows.tape = call.tape;
        if (arena.base && call.tape.data) leave_forward(rows.work.net);
        shares = arena.take<double>(teams * rows.rows * panels_of<T>(width));
        return rows;
    });
    if (!memory.base) return Outcome::no_memory;
    fill(own.nonfinite, false, call.B);
    const Outcome outcome = run_workers(how, teams, [&](const Worker& worker) {
        pack_network(own.work.net, net, worker);
        const Range mine = share(call.B * K, worker.team, worker.teams);
        for_each_piece(worker, mine.size(), own.inputs * K, [&](Range part) {
            const Range block = {mine.begin + part.begin, mine.begin + part.end};
            const int64_t begin = block.begin / K, end = (block.end - 1) / K + 1;
            const Pass<T> primal(own.work, worker, end - begin, rows_from(own.tape, begin));
            pass_whole(primal, {call.x[begin], call.x.stride}, net.inputs(), own.nonfinite + begin);
            const Tape<T>& tape = primal.tape;
            const Range rows = share(own.tape.data ? 0 : end - begin, worker.rank, worker.ranks);
            for (int64_t b = begin + rows.begin; b < begin + rows.end; ++b)
                if (b * K >= block.begin)  // else another block's
                    copy(call.y[b],
                         tape.post[net.depth - 1] + (b - begin) * tape.stride[net.depth - 1],
                         net.outputs());
            double* team = shares + worker.team * own.rows * panels_of<T>(width);
            if (call.K)
                for_each_pass(own, worker, block,
                              [&](const Pass<T>& pass, const ProbeRows& at, int64_t n) {
                                  probe_rows_whole(call, pass, at, n, back, own.nonfinite, team);
                              });
        });
    });
    mark_nonfinite_rows(call, own.nonfinite, back);
    return outcome;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
