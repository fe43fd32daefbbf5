// K tangents or cotangents per input beside one pass.
#pragma once

#include "net/first_factor.h"
#include "net/probe_rows.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// A call of net_jvp or net_vjp on its way.
template <typename T>
struct Probes {
    const NetProbes<T>& call;
    Workspace<T> work;
    bool back;              // cotangents
    int64_t K;              // call.K, but one row per input where there is no probe
    int64_t rows;           // that pass together
    int64_t inputs;         // of a block
    Rows<T> first;          // [K, ·] product 0 of shared probes, null where slopes come before it
    double* shares;         // [teams, rows, ends] of the squared norms
    int64_t ends;           // panels of what is squared
    FirstFactor<T> factor;  // takes the place of W₁ in the norms, where it has data
    bool *nonfinite, *nonfinite_probes;  // [B], [1]: whether x or probes hold NaN or infinity

    int64_t depth() const { return work.net.depth; }
    const Packed<T>& weights(int64_t s) const {
        return back ? work.net[depth() - 1 - s].backward : work.net[s].forward;
    }
    // Whether every row's own probe enters product 0 as it lies, whose outputs tell nonfinite
    // probes.
    bool in_place() const { return !call.shared && !has_output_slope() && weights(0).outputs > 0; }
    // Whether slopes multiply the probes.
    bool has_output_slope() const {
        return back && call.net.layers[call.net.depth - 1].activation != Activation::identity;
    }
    // The layer whose slopes multiply product s, or for s = −1 the probes; −1 for none.
    int64_t slope(int64_t s) const { return back ? depth() - 2 - s : s; }
};

// Whether cotangents' norms go through the factor of W₁, where no products are wanted: decided by
// widths and never by the batch, as its bits differ.
template <typename T>
bool by_factor(const NetProbes<T>& call, bool back) {
    return back && !call.products.data && sizeof(T) < sizeof(double) &&
           2 * call.net.inputs() >= 3 * call.net.layers[0].outputs;
}

template <typename T>
Probes<T> take_probes(Arena& arena, const NetProbes<T>& call, bool back, int64_t teams,
                      int threads) {
    const Network<T>& net = call.net;
    const int64_t K = call.K ? call.K : 1, rows = probe_rows(net), inputs = probed_inputs(rows, K);
    const int64_t most = rows > inputs ? rows : inputs + 1;  // a block may start within an input
    Probes<T> probes = {call,
                        take_workspace(arena, net, most, teams, threads, true),
                        back,
                        K,
                        rows,
                        inputs,
                        {},
                        nullptr,
                        panels_of<T>(back ? net.inputs() : net.outputs()),
                        {},
                        arena.take<bool>(call.B),
                        arena.take<bool>(1)};
    if (call.shared && net.depth > 1 && !probes.has_output_slope()) {
        const int64_t stride =
            padded<T>(back ? net.layers[net.depth - 1].inputs : net.layers[0].outputs);
        probes.first = {arena.take<T>(call.K * stride), stride};
    }
    if (by_factor(call, back)) {
        probes.factor = take_factor(arena, net, threads);
        probes.ends = panels_of<T>(probes.factor.across.outputs);
    }
    probes.shares = arena.take<double>(teams * rows * probes.ends);
    take_active(arena, probes.work, net, most, K, teams);
    if (!arena.base) return probes;
    *probes.nonfinite_probes = false;
    if (probes.factor.rows.data) probes.work.net.layers[0].backward.data = nullptr;
    if (call.tape.data) leave_forward(probes.work.net);
    if (!back)
        for (int64_t l = 0; l < net.depth; ++l) probes.work.net.layers[l].backward.data = nullptr;
    return probes;
}

// Packed weights, and the first product of shared probes; ends with a barrier of all threads.
template <typename T>
void prepare(const Probes<T>& probes, const Worker& worker) {
    const NetProbes<T>& call = probes.call;
    const Range inputs = share(call.B, worker.id, worker.threads);
    fill(probes.nonfinite + inputs.begin, false, inputs.size());
    const Range own = share(call.shared ? call.K : 0, worker.id, worker.threads);
    for (int64_t k = own.begin; k < own.end; ++k)
        if (!all_finite(call.probes[k], probes.weights(0).depth)) set_flag(probes.nonfinite_probes);
    pack_network(probes.work.net, call.net, worker);
    if (probes.factor.rows.data)
        make_factor(probes.factor, call.net.layers[0], probes.work.net[0].forward, worker);
    for (int64_t s = 0; s < probes.depth(); ++s)
        check_weights(probes.work, probes.weights(s), worker);
    check_weights(probes.work, probes.factor.across, worker);
    worker.everyone->wait();
    if (!probes.first.data) return;
    const Range panels = share(probes.weights(0).panels(), worker.id, worker.threads);
    for (int64_t k = 0; k < call.K; k += probes.rows) {
        const int64_t count = call.K - k < probes.rows ? call.K - k : probes.rows;
        product(call.probes[k], call.probes.stride, count, probes.weights(0), panels.begin,
                panels.end, probes.work.scratch[worker.id], [&](const Tile<T>& tile) {
                    for (int64_t r = 0; r < count; ++r)
                        std::memcpy(probes.first[k + r] + tile.first, tile[r],
                                    tile.padded * sizeof(T));
                });
    }
    worker.everyone->wait();
}

// Own probe n makes its input nonfinite where it is not finite.
template <typename T>
void check_probe(const Probes<T>& probes, int64_t n) {
    if (!all_finite(probes.call.probes[n], probes.weights(0).depth))
        set_flag(probes.nonfinite + n / probes.K);
}

// Rows [n, ...) of the call into up[0]: probes or their first product, times slopes.
template <typename T>
void load_probes(const Probes<T>& probes, const Pass<T>& pass, const ProbeRows& at, int64_t n) {
    const bool ready = probes.first.data, shared = probes.call.shared;
    const Packed<T>& w = probes.weights(0);
    const int64_t width = ready ? w.outputs : w.depth, l = probes.slope(ready ? 0 : -1);
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    at.each(own, [&](int64_t r, int64_t b, int64_t k) {
        const T* from = ready ? probes.first[k] : probes.call.probes[shared ? k : n + r];
        T* to = pass.tape.up[0] + r * pass.tape.up_stride;
        if (!shared) check_probe(probes, n + r);
        if (ready)
            mask(pass, l, b, 0, from, to, panels_of<T>(width) * PANEL<T>);
        else if (l >= 0)
            mask_row(pass, l, b, from, to, width);
        else
            copy_padded(to, from, width);
    });
    pass.worker.sync();
}

// Σ v² of a panel.
template <typename T>
double sum_squares(const T* v) {
    double lanes[PANEL<T>];
    for (int64_t j = 0; j < PANEL<T>; ++j) lanes[j] = double(v[j]) * double(v[j]);
    for (int64_t half = PANEL<T> / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    return lanes[0];
}

// The squared norms of a tile's rows, panel by panel of `ends`: shares [rows, ends].
template <typename T>
void square_rows(const Tile<T>& tile, int64_t rows, double* shares, int64_t ends) {
    for (int64_t r = 0; r < rows; ++r) {
        fill(tile[r] + tile.count, T(0), tile.padded - tile.count);  // infinity times zero
        for (int64_t j = 0; j < tile.count; j += PANEL<T>)
            shares[r * ends + (tile.first + j) / PANEL<T>] = sum_squares(tile[r] + j);
    }
}

// sq of rows `own` from their shares [·, ends].
inline void sum_shares(const double* shares, int64_t ends, Range own, double* sq) {
    for (int64_t r = own.begin; r < own.end; ++r) {
        double sum = 0;
        for (int64_t p = 0; p < ends; ++p) sum += shares[r * ends + p];
        sq[r] = sum;
    }
}

// The last product of rows [n, ...) from `from`: squared norms, and the products where wanted.
template <typename T, typename Inspect>
void last_product(const Probes<T>& probes, const Pass<T>& pass, const ProbeRows& at, int64_t n,
                  Rows<const T> from, Inspect inspect) {
    const NetProbes<T>& call = probes.call;
    const Packed<T>&w = probes.weights(probes.depth() - 1), &across = probes.factor.across;
    const int64_t l = probes.slope(probes.depth() - 1), m = probes.slope(probes.depth() - 2);
    double* shares = probes.shares + pass.worker.team * probes.rows * probes.ends;
    if (across.data)
        share_panels(across.panels(), true, pass.worker, [&](Range own) {
            multiply_masked(pass, at, from, m, across, own, [&](const Tile<T>& tile) {
                inspect(tile);
                square_rows(tile, pass.rows, shares, probes.ends);
            });
        });
    const auto epilogue = [&](const Tile<T>& tile) {
        inspect(tile);
        at.each({0, pass.rows}, [&](int64_t r, int64_t b, int64_t) VAEFAST_FLAT {
            if (l >= 0) multiply_slope_of(pass, l, b, tile.first, tile[r], tile[r], tile.padded);
            if (call.products.data)
                std::memcpy(call.products[n + r] + tile.first, tile[r], tile.count * sizeof(T));
        });
        square_rows(tile, pass.rows, shares, probes.ends);
    };
    const Range panels = share(w.panels(), pass.worker.rank, pass.worker.ranks);
    if (!across.data) multiply_masked(pass, at, from, m, w, panels, epilogue);
    pass.worker.sync();
    sum_shares(shares, probes.ends, share(pass.rows, pass.worker.rank, pass.worker.ranks),
               call.sq + n);
}

// Rows [n, ...) of the call from their probes to the norms.
template <typename T>
void pass_probes(const Probes<T>& probes, const Pass<T>& pass, const ProbeRows& at, int64_t n) {
    const int64_t last = probes.depth() - 1, first = probes.first.data ? 1 : 0;
    const bool in_place = probes.in_place();
    if (!in_place) load_probes(probes, pass, at, n);
    for (int64_t s = first, now = 0; s <= last; ++s, now = 1 - now) {
        const bool raw = in_place && s == 0;
        const auto inspect = [&](const Tile<T>& tile) {
            const auto check = [&](int64_t r) { check_probe(probes, n + r); };
            if (raw) each_nonfinite_row(tile, pass.rows, check);
        };
        const Rows<const T> up = {pass.tape.up[now], pass.tape.up_stride},
                            own = {probes.call.probes[n], probes.call.probes.stride};
        if (s < last)
            hidden_product(pass, at, raw ? own : up, probes.slope(s - 1), probes.weights(s),
                           probes.slope(s), 1 - now, inspect);
        else
            last_product(probes, pass, at, n, raw ? own : up, inspect);
    }
}

// Rows `block` of the call's B·K: their inputs' pass, then the rows, as many at a time as fit.
template <typename T>
void probe_block(const Probes<T>& probes, const Worker& worker, Range block) {
    const NetProbes<T>& call = probes.call;
    const int64_t K = probes.K, begin = block.begin / K, end = (block.end - 1) / K + 1;
    const int64_t last = probes.depth() - 1;
    const Rows<T> kept = rows_from(call.tape, begin);
    const Pass<T> primal(probes.work, worker, end - begin, kept);
    const Rows<const T> x = {call.x[begin], call.x.stride};
    if (kept.data)
        check_inputs(primal, x, call.net.inputs(), probes.nonfinite + begin);
    else
        pass_inputs(primal, x, last + 1, probes.nonfinite + begin);
    const Range own = share(kept.data ? 0 : end - begin, worker.rank, worker.ranks);
    for (int64_t b = begin + own.begin; b < begin + own.end; ++b) {
        if (b * K < block.begin) continue;  // another block's
        const T* out = primal.tape.post[last] + (b - begin) * primal.tape.stride[last];
        copy(call.y[b], out, call.net.outputs());
    }
    for_each_piece(worker, call.K ? block.size() : 0, probes.rows, [&](Range piece) {
        const int64_t n = block.begin + piece.begin;
        const Pass<T> pass(probes.work, worker, piece.size(), kept);
        pass_probes(probes, pass, {n - begin * K, K}, n);
    });
}

// NaN in every result of the nonfinite inputs, of which there are [B].
template <typename T>
void mark_nonfinite_rows(const NetProbes<T>& call, const bool* nonfinite, bool back) {
    const int64_t width = back ? call.net.inputs() : call.net.outputs();
    for (int64_t b = 0; b < call.B; ++b) {
        if (!nonfinite[b]) continue;
        if (!call.tape.data) fill(call.y[b], T(NAN), call.net.outputs());
        fill(call.sq + b * call.K, double(NAN), call.K);
        for (int64_t k = 0; call.products.data && k < call.K; ++k)
            fill(call.products[b * call.K + k], T(NAN), width);
    }
}

template <typename T>
Outcome run_probes(const NetProbes<T>& call, const Call& how, bool back) {
    const int64_t N = call.B * (call.K ? call.K : 1),
                  teams = teams_of(N, how.threads, enough_rows(call.net));
    Memory memory;
    const auto probes = memory.layout(
        [&](Arena& arena) { return take_probes(arena, call, back, teams, how.threads); });
    if (!memory.base) return Outcome::no_memory;
    const Outcome outcome = run_workers(how, teams, [&](const Worker& worker) {
        prepare(probes, worker);
        const Range own = share(N, worker.team, worker.teams);
        for_each_piece(worker, own.size(), probes.inputs * probes.K, [&](Range block) {
            probe_block(probes, worker, {own.begin + block.begin, own.begin + block.end});
        });
    });
    if (*probes.nonfinite_probes) fill(probes.nonfinite, true, call.B);
    mark_nonfinite_rows(call, probes.nonfinite, back);
    return outcome;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
