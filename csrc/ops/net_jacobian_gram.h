// S J Jᵀ S of a network's Jacobian J = M W₁ per input: with F Fᵀ = W₁W₁ᵀ it is the Gram of S M F.
#pragma once

#include "net/first_factor.h"
#include "net/probes.h"
#include "net/whole_rows.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// One team's buffers.
template <typename T>
struct Roots {
    T* rows;           // of S M F, `stride` apart, for the inputs of a piece
    Packed<T> packed;  // one input's
};

// A call of net_jacobian_gram on its way.
template <typename T>
struct Gram {
    const NetJacobianGram<T>& call;
    Workspace<T> work;
    int64_t rows;           // that pass together, d for each input
    int64_t inputs, piece;  // of a block; of those, how many have their roots at once
    FirstFactor<T> factor;
    bool* nonfinite;     // [B], whether x holds NaN or infinity
    Rows<T> entry = {};  // row i: where unit vector i goes first, W_L or, for one layer, F
    Roots<T>* roots = nullptr;

    int64_t depth() const { return work.net.depth; }
    int64_t d() const { return call.net.outputs(); }
    int64_t stride() const { return factor.rows.stride; }
    Activation last() const { return call.net.layers[depth() - 1].activation; }
    // The factor of input n's row i, which is input b of the pass.
    T scale(const Tape<T>& tape, int64_t n, int64_t b, int64_t i) const {
        const int64_t l = depth() - 1;
        const bool has_output_slope =
            last() != Activation::identity && last() != Activation::maxmin;
        const T slope = has_output_slope ? tape.slope[l][b * tape.stride[l] + i] : T(1);
        return call.inv_std.data ? call.inv_std[n][i] * slope : slope;
    }
    // The row of `entry` for output i of input b: maxmin may have exchanged a pair.
    const T* source(const Tape<T>& tape, int64_t b, int64_t i) const {
        const int64_t l = depth() - 1;
        const bool swapped =
            last() == Activation::maxmin && !(tape.slope[l][b * tape.stride[l] + i] > 0);
        return entry[swapped ? i ^ 1 : i];
    }
};

template <typename T>
Gram<T> take_gram(Arena& arena, const NetJacobianGram<T>& call, int64_t teams, int threads) {
    const Network<T>& net = call.net;
    const int64_t d = net.outputs(), rows = probe_rows(net), inputs = probed_inputs(rows, d);
    const int64_t most = rows > inputs ? rows : inputs;
    Gram<T> gram = {call,
                    take_workspace(arena, net, most, teams, threads, true),
                    rows,
                    inputs,
                    1,
                    take_factor(arena, net, threads),
                    arena.take<bool>(call.B)};
    const int64_t fit = BLOCK_BYTES / 2 / (d * gram.stride() * int64_t(sizeof(T)));
    gram.piece = fit < 1 ? 1 : fit < inputs ? fit : inputs;
    gram.entry = gram.factor.rows;
    if (net.depth > 1) {
        const int64_t stride = padded<T>(net.layers[net.depth - 1].inputs);
        gram.entry = {arena.take<T>(d * stride), stride};
    }
    const int64_t columns = gram.factor.across.outputs;
    gram.roots = arena.take<Roots<T>>(teams);
    for (int64_t t = 0; t < teams; ++t) {
        T* own = arena.take<T>(gram.piece * d * gram.stride());
        T* packed = arena.take<T>(packed_size<T>(d, columns));
        if (arena.base) gram.roots[t] = {own, {packed, d, columns, false}};
    }
    take_active(arena, gram.work, net, most, d, teams);
    if (!arena.base) return gram;
    gram.work.net.layers[0].backward.data = nullptr;  // F and `entry` stand for these two
    gram.work.net.layers[net.depth - 1].backward.data = nullptr;
    return gram;
}

// F, `entry` and packed weights; ends with a barrier of all threads.
template <typename T>
void prepare(const Gram<T>& gram, const Worker& worker) {
    const Network<T>& net = gram.call.net;
    const Range outputs = share(gram.depth() > 1 ? gram.d() : 0, worker.id, worker.threads);
    const Range inputs = share(gram.call.B, worker.id, worker.threads);
    fill(gram.nonfinite + inputs.begin, false, inputs.size());
    for (int64_t i = outputs.begin; i < outputs.end; ++i)
        copy_row(net.layers[gram.depth() - 1], i, gram.entry[i]);
    pack_network(gram.work.net, net, worker);
    make_factor(gram.factor, net.layers[0], gram.work.net[0].forward, worker);
    for (int64_t l = 1; l + 1 < net.depth; ++l)
        check_weights(gram.work, gram.work.net[l].backward, worker);
    check_weights(gram.work, gram.work.net.last().forward, worker);
    check_weights(gram.work, gram.factor.across, worker);
    worker.everyone->wait();
}

// Rows of S M F for inputs from `first` of the call on; ends with the team's barrier.
template <typename T>
void pull_roots(const Gram<T>& gram, const Pass<T>& pass, const ProbeRows& at, int64_t first,
                T* to) {
    const Worker& worker = pass.worker;
    const Tape<T>& tape = pass.tape;
    const int64_t l = gram.depth() - 2, width = gram.call.net.layers[l + 1].inputs;
    at.each(share(pass.rows, worker.rank, worker.ranks), [&](int64_t r, int64_t b, int64_t i) {
        const T* from = gram.source(tape, b, i);
        if (l < 0) {
            const T scale = gram.scale(tape, first + b, b, i);
            for (int64_t j = 0; j < gram.factor.across.outputs; ++j)
                to[r * gram.stride() + j] = scale * from[j];
            return;
        }
        T* row = tape.up[0] + r * tape.up_stride;
        mask_row(pass, l, b, from, row, width);
    });
    worker.sync();
    if (l < 0) return;
    int64_t now = 0;
    for (int64_t s = l; s > 0; --s, now = 1 - now)
        hidden_product(pass, at, {tape.up[now], tape.up_stride}, s, pass.net[s].backward, s - 1,
                       1 - now, [](const Tile<T>&) {});
    const auto epilogue = [&](const Tile<T>& tile) {
        at.each({0, pass.rows}, [&](int64_t r, int64_t b, int64_t i) VAEFAST_FLAT {
            const T scale = gram.scale(tape, first + b, b, i);
            for (int64_t j = 0; j < tile.count; ++j)
                to[r * gram.stride() + tile.first + j] = scale * tile[r][j];
        });
    };
    const Packed<T>& across = gram.factor.across;
    share_panels(across.panels(), across.triangular, worker, [&](Range own) {
        multiply_masked(pass, at, {tape.up[now], tape.up_stride}, 0, across, own, epilogue);
    });
    worker.sync();
}

// Input n's Gram of its d roots, rows `stride` apart, of which `rows` are multiplied at a time:
// entries (i, j) and (j, i) are the same sum. Ends with the team's barrier.
template <typename T>
void multiply_roots(const NetJacobianGram<T>& call, const Worker& worker, const T* root,
                    int64_t stride, const Packed<T>& packed, int64_t rows, T* scratch, int64_t n,
                    bool nonfinite) {
    const int64_t d = call.net.outputs();
    const Range own = share(packed.panels(), worker.rank, worker.ranks);
    T* out = call.out + n * d * d;
    pack(packed, root, stride, 1, own.begin, own.end);
    for (int64_t i = 0; i < d; i += rows) {
        const int64_t count = d - i < rows ? d - i : rows;
        product(root + i * stride, stride, count, packed, own.begin, own.end, scratch,
                [&](const Tile<T>& tile) {
                    for (int64_t r = 0; r < count; ++r)
                        copy(out + (i + r) * d + tile.first, tile[r], tile.count);
                });
    }
    worker.sync();
    nonfinite = nonfinite || (call.inv_std.data && !all_finite(call.inv_std[n], d));
    if (nonfinite && worker.rank == 0) fill(out, T(NAN), d * d);
}

// The inputs' pass, then their roots, as many inputs at a time as fit, and each one's Gram.
template <typename T>
void gram_block(const Gram<T>& gram, const Worker& worker, Range block) {
    const int64_t d = gram.d(), layers = gram.depth() - (gram.last() == Activation::identity);
    const Pass<T> primal(gram.work, worker, block.size());
    const Rows<const T> x = {gram.call.x[block.begin], gram.call.x.stride};
    pass_inputs(primal, x, layers, gram.nonfinite + block.begin);
    T* roots = gram.roots[worker.team].rows;
    for (int64_t b = 0; b < block.size(); b += gram.piece) {
        const int64_t count = block.size() - b < gram.piece ? block.size() - b : gram.piece;
        for_each_piece(worker, count * d, gram.rows, [&](Range cut) {
            const Pass<T> pass(gram.work, worker, cut.size());
            pull_roots(gram, pass, {b * d + cut.begin, d}, block.begin,
                       roots + cut.begin * gram.stride());
        });
        if (worker.stopped()) return;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t n = block.begin + b + i;
            multiply_roots(gram.call, worker, roots + i * d * gram.stride(), gram.stride(),
                           gram.roots[worker.team].packed, gram.rows, gram.work.scratch[worker.id],
                           n, gram.nonfinite[n]);
        }
    }
}

// Unit cotangents of rows [n, ...), each times the whitening's entry, into up[0].
template <typename T>
void load_units(const NetJacobianGram<T>& call, const Pass<T>& pass, const ProbeRows& at,
                int64_t n) {
    const int64_t last = pass.net.depth - 1, d = call.net.outputs();
    const Tape<T>& tape = pass.tape;
    at.each(share(pass.rows, pass.worker.rank, pass.worker.ranks),
            [&](int64_t r, int64_t b, int64_t i) {
                T* to = tape.up[0] + r * tape.up_stride;
                fill(to, T(0), panels_of<T>(d) * PANEL<T>);
                to[i] = call.inv_std.data ? call.inv_std[(n + r) / d][i] : T(1);
                multiply_slope(pass.net[last].activation, tape.slope[last] + b * tape.stride[last],
                               to, panels_of<T>(d) * PANEL<T>);
            });
    pass.worker.sync();
}

// S J Jᵀ S from whole rows of J, an input at a time for each team.
template <typename T>
Outcome gram_of_rows(const NetJacobianGram<T>& call, const Call& how) {
    const Network<T>& net = call.net;
    const int64_t d = net.outputs(), D = net.inputs(), stride = padded<T>(D);
    const int64_t teams = teams_of(call.B, how.threads, 1);
    T *roots = nullptr, *panels = nullptr;
    Memory memory;
    const auto own = memory.layout([&](Arena& arena) {
        roots = arena.take<T>(teams * d * stride);
        panels = arena.take<T>(teams * packed_size<T>(d, D));
        return take_whole_rows(arena, net, call.B, d, teams, how.threads);
    });
    if (!memory.base) return Outcome::no_memory;
    fill(own.nonfinite, false, call.B);
    return run_workers(how, teams, [&](const Worker& worker) {
        T* rows = roots + worker.team * d * stride;
        const Packed<T> packed = {panels + worker.team * packed_size<T>(d, D), d, D, false};
        pack_network(own.work.net, net, worker);
        for_each_block(worker, call.B, 1, [&](Range block) {
            const Pass<T> primal(own.work, worker, 1);
            pass_whole(primal, {call.x[block.begin], call.x.stride}, D,
                       own.nonfinite + block.begin);
            for_each_pass(own, worker, {block.begin * d, block.end * d},
                          [&](const Pass<T>& pass, const ProbeRows& at, int64_t n) {
                              load_units(call, pass, at, n);
                              backward_to_input(pass, at, [&](const Tile<T>& tile) {
                                  for (int64_t r = 0; r < pass.rows; ++r)
                                      copy(rows + (at.first + r) * stride + tile.first, tile[r],
                                           tile.count);
                              });
                              pass.worker.sync();
                          });
            if (!worker.stopped())
                multiply_roots(call, worker, rows, stride, packed, own.rows,
                               own.work.scratch[worker.id], block.begin,
                               own.nonfinite[block.begin]);
        });
    });
}

template <typename T>
Outcome net_jacobian_gram(const NetJacobianGram<T>& call, const Call& how) {
    if (!call.net.is_mlp()) return gram_of_rows(call, how);
    const int64_t even = call.B / 4 > 1 ? call.B / 4 : 1;  // inputs a team, lest one has most
    const int64_t enough =
        teams_of(call.B * call.net.outputs(), how.threads, enough_rows(call.net));
    const int64_t teams = enough < even ? enough : even;
    Memory memory;
    const auto gram =
        memory.layout([&](Arena& arena) { return take_gram(arena, call, teams, how.threads); });
    if (!memory.base) return Outcome::no_memory;
    return run_workers(how, teams, [&](const Worker& worker) {
        prepare(gram, worker);
        for_each_block(worker, call.B, gram.inputs,
                       [&](Range block) { gram_block(gram, worker, block); });
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
