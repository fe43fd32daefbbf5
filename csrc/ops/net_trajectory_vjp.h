// The adjoint of L leapfrog steps: positions are computed anew, with the activations' derivatives
// at each; then cotangents go back through kicks and drifts.
#pragma once

#include "net/second_order.h"
#include "ops/net_trajectory.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t KEPT_BYTES = 1 << 25;  // of derivatives that a team keeps of a trajectory

// The chains of one block on their way: rows [·, d] are `stride` apart and padded with zeros.
template <typename T>
struct Sweep {
    int64_t stride, rows;
    int64_t count;  // of positions that kick
    int64_t kept;   // positions whose derivatives are kept at once
    Derivatives<T>* derivatives;
    T* z;  // [count, rows, stride]
    T *p, *into_z, *into_p;
    T* inv_mass;     // null for unit mass
    T *step, *kick;  // [rows]

    T* at(int64_t position) const { return z + position * rows * stride; }
    const Derivatives<T>& derivatives_at(int64_t position) const {
        return derivatives[position % kept];
    }
};

template <typename T>
Sweep<T> take_sweep(Arena& arena, const NetTrajectoryVjp<T>& call, int64_t rows) {
    const Network<T>& net = call.target.net;
    Arena one = {};
    take_derivatives(one, net, rows);
    const int64_t fit = KEPT_BYTES / (one.used + 1), stride = padded<T>(net.inputs()),
                  size = rows * stride;
    Sweep<T> sweep = {};
    sweep.stride = stride;
    sweep.rows = rows;
    sweep.count = call.leapfrog + (call.upstream_p.data ? 1 : 0);
    sweep.kept = fit < 1 ? 1 : fit < sweep.count ? fit : sweep.count;
    sweep.derivatives = arena.take<Derivatives<T>>(sweep.kept);
    for (int64_t k = 0; k < sweep.kept; ++k) {
        const Derivatives<T> derivatives = take_derivatives(arena, net, rows);
        if (arena.base) sweep.derivatives[k] = derivatives;
    }
    sweep.z = arena.take<T>(sweep.count * size);
    sweep.p = arena.take<T>(size);
    sweep.into_z = arena.take<T>(size);
    sweep.into_p = arena.take<T>(size);
    sweep.inv_mass = call.inv_mass.data ? arena.take<T>(size) : nullptr;
    sweep.step = arena.take<T>(rows);
    sweep.kick = arena.take<T>(rows);
    return sweep;
}

// into_p ← into_p + step·M⁻¹ into_z of row r from column `first` on: `count` in whole vectors.
template <typename T>
void drift_back(const Sweep<T>& sweep, int64_t r, int64_t first, int64_t count) {
    const int64_t at = r * sweep.stride + first;
    const T* mass = from(sweep.inv_mass, at);
    const Vec<T> step = broadcast(sweep.step[r]);
    for (int64_t j = 0; j < count; j += width<T>) {
        const Vec<T> z = load(sweep.into_z + at + j);
        store<T>(sweep.into_p + at + j,
                 fma(step, mass ? load(mass + j) * z : z, load(sweep.into_p + at + j)));
    }
}

// Starts and cotangents of rows `own` from the call's memory.
template <typename T>
void load_rows(const NetTrajectoryVjp<T>& call, const Sweep<T>& sweep, const int64_t* number,
               Range own) {
    const int64_t d = call.target.net.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = number[r], at = r * sweep.stride;
        copy_padded(sweep.z + at, call.z[n], d);
        copy_padded(sweep.p + at, call.p[n], d);
        copy_padded(sweep.into_z + at, call.upstream[n], d);
        if (sweep.inv_mass)
            copy_padded(sweep.inv_mass + at, call.inv_mass[n / call.target.chains], d);
        sweep.step[r] = call.step[n];
        fill(call.shares[n], T(0), call.target.net.outputs());
        if (call.upstream_p.data) {
            copy_padded(sweep.into_p + at, call.upstream_p[n], d);
        } else {
            fill(sweep.into_p + at, T(0), sweep.stride);
            drift_back(sweep, r, 0, panels_of<T>(d) * PANEL<T>);
        }
    }
}

// The gradient at a position, kept; where `moves`, its kick and drift lead to the next.
template <typename T>
void keep_position(const Pass<T>& pass, const Targets<T>& rows, const Sweep<T>& sweep,
                   int64_t position, bool moves) {
    const T* z = sweep.at(position);
    const T part = position ? T(1) : T(0.5);
    const auto epilogue = [&](const Tile<T>& tile) {
        for (int64_t r = 0; moves && r < pass.rows; ++r) {
            const int64_t at = r * sweep.stride + tile.first;
            T* next = sweep.at(position + 1) + at;
            for (int64_t j = 0; j < tile.padded; j += width<T>)
                store<T>(tile[r] + j, load(z + at + j) - load(tile[r] + j));
            copy(next, z + at, tile.padded);
            kick_and_drift(next, sweep.p + at, tile[r], from(sweep.inv_mass, at),
                           part * sweep.step[r], sweep.step[r], tile.padded);
        }
    };
    gradient_with_derivatives(pass, rows, sweep.derivatives_at(position), z, sweep.stride,
                              epilogue);
}

// The cotangents go back through the kick at a position, and the drift that leads there.
template <typename T>
void pull_position(const NetTrajectoryVjp<T>& call, const Pass<T>& pass, const Targets<T>& rows,
                   const Sweep<T>& sweep, int64_t position) {
    const bool half = position == 0 || position == call.leapfrog;
    if (pass.worker.rank == 0)
        for (int64_t r = 0; r < pass.rows; ++r) sweep.kick[r] = (half ? T(0.5) : 1) * sweep.step[r];
    pass.worker.sync();
    const auto epilogue = [&](const Tile<T>& tile) {
        for (int64_t r = 0; r < pass.rows; ++r) {
            const int64_t at = r * sweep.stride + tile.first;
            const Vec<T> down = broadcast(-sweep.kick[r]);
            for (int64_t j = 0; j < tile.padded; j += width<T>) {
                const Vec<T> curved = load(sweep.into_p + at + j) - load(tile[r] + j);
                store<T>(sweep.into_z + at + j, fma(down, curved, load(sweep.into_z + at + j)));
            }
            if (position) drift_back(sweep, r, tile.first, tile.padded);
        }
    };
    second_order_product(pass, rows, sweep.derivatives_at(position), sweep.into_p, sweep.stride,
                         call.shares, sweep.kick, epilogue);
}

// Both ways; false where the caller was interrupted. Derivatives of positions that did not fit are
// made once more.
template <typename T>
bool there_and_back(const NetTrajectoryVjp<T>& call, const Pass<T>& pass, const Targets<T>& rows,
                    const Sweep<T>& sweep) {
    for (int64_t k = 0; k < sweep.count; ++k) {
        keep_position(pass, rows, sweep, k, k + 1 < sweep.count);
        if (pass.worker.stopped()) return false;
    }
    for (int64_t k = sweep.count - 1; k >= 0; --k) {
        if (k + 1 < sweep.count && (k + 1) % sweep.kept == 0)
            for (int64_t again = k + 1 - sweep.kept; again <= k; ++again)
                keep_position(pass, rows, sweep, again, false);
        pull_position(call, pass, rows, sweep, k);
        if (pass.worker.stopped()) return false;
    }
    return true;
}

template <typename T>
bool finite_inputs(const NetTrajectoryVjp<T>& call, int64_t n) {
    const int64_t d = call.target.net.inputs(), b = n / call.target.chains;
    return all_finite(call.z[n], d) && all_finite(call.p[n], d) &&
           all_finite(call.upstream[n], d) &&
           (!call.upstream_p.data || all_finite(call.upstream_p[n], d)) &&
           all_finite(&call.step[n], 1) && valid_image(call.target, b) &&
           (!call.inv_mass.data || all_finite(call.inv_mass[b], d));
}

template <typename T>
void trajectory_vjp_block(const NetTrajectoryVjp<T>& call, const Pass<T>& pass,
                          const Sweep<T>& sweep, const int64_t* number) {
    const Targets<T> rows = {call.target, number};
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    const int64_t d = call.target.net.inputs();
    load_rows(call, sweep, number, own);
    pass.worker.sync();
    if (!there_and_back(call, pass, rows, sweep)) return;
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = number[r], at = r * sweep.stride;
        copy(call.into_z[n], sweep.into_z + at, d);
        copy(call.into_p[n], sweep.into_p + at, d);
        if (finite_inputs(call, n)) continue;
        fill(call.into_z[n], T(NAN), d);
        fill(call.into_p[n], T(NAN), d);
        fill(call.shares[n], T(NAN), call.target.net.outputs());
    }
}

// The numbers of the accepted rows into `number`, which returns their count; those that stayed pass
// their cotangent on.
template <typename T>
int64_t list_accepted(const NetTrajectoryVjp<T>& call, int64_t* number) {
    const int64_t d = call.target.net.inputs();
    int64_t count = 0;
    for (int64_t n = 0; n < call.N; ++n) {
        if (!call.accepted || call.accepted[n]) {
            number[count++] = n;
            continue;
        }
        copy(call.into_z[n], call.upstream[n], d);
        fill(call.into_p[n], T(0), d);
        fill(call.shares[n], T(0), call.target.net.outputs());
    }
    return count;
}

template <typename T>
Outcome net_trajectory_vjp(const NetTrajectoryVjp<T>& call, const Call& how) {
    const Network<T>& net = call.target.net;
    Memory memory;
    int64_t* number = memory.layout([&](Arena& arena) { return arena.take<int64_t>(call.N); });
    if (!memory.base) return Outcome::no_memory;
    const int64_t count = list_accepted(call, number);
    const auto take = [&](Arena& arena, int64_t rows) { return take_sweep(arena, call, rows); };
    const Outcome outcome =
        run_blocks(net, count, how, true, take,
                   [&](const Pass<T>& pass, int64_t first, const Sweep<T>& sweep) {
                       trajectory_vjp_block(call, pass, sweep, number + first);
                   });
    for (int64_t n = 0; n < call.N && call.target.chains > 1; ++n) {
        T* to = call.into_x[n / call.target.chains];
        for (int64_t j = 0; j < net.outputs(); ++j) to[j] += call.shares[n][j];
    }
    return outcome;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
