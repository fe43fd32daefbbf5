// L leapfrog steps on a network decoder's posterior: state and activations of a block stay in
// cache.
#pragma once

#include "ops/net_potential.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// The chains of one block: rows [·, d] are `stride` apart and padded with zeros.
template <typename T>
struct Phase {
    int64_t stride;
    T *z, *p, *grad;
    T* inv_mass;       // null for unit mass
    Root<T> root;      // of the call
    T* step;           // [rows]
    double* energies;  // [rows, panels of D], shares of log p at the end
};

template <typename T>
Phase<T> take_phase(Arena& arena, const Network<T>& net, int64_t rows, bool mass, Root<T> root) {
    const int64_t stride = padded<T>(net.inputs()), size = rows * stride;
    T *z = arena.take<T>(size), *p = arena.take<T>(size), *grad = arena.take<T>(size);
    return {stride,
            z,
            p,
            grad,
            mass ? arena.take<T>(size) : nullptr,
            root,
            arena.take<T>(rows),
            arena.take<double>(rows * panels_of<T>(net.outputs()))};
}

// p ← p − kick·grad, then z ← z + step·M⁻¹p unless step is 0; `count` in whole vectors.
template <typename T>
void kick_and_drift(T* z, T* p, const T* grad, const T* inv_mass, T kick, T step, int64_t count) {
    const Vec<T> down = broadcast(-kick), along = broadcast(step);
    for (int64_t j = 0; j < count; j += width<T>) {
        const Vec<T> momentum = fma(down, load(grad + j), load(p + j));
        store<T>(p + j, momentum);
        if (step == 0) continue;
        const Vec<T> velocity = inv_mass ? load(inv_mass + j) * momentum : momentum;
        store<T>(z + j, fma(along, velocity, load(z + j)));
    }
}

// to ← to + factor·Aᵀv, A [d, d] by rows: every element sums in the order of A's rows.
template <typename T>
void add_product(T* to, T factor, const T* v, const T* A, int64_t d) {
    for_each_vector<T>(d, [&](int64_t j, int64_t n) VAEFAST_FLAT {
        Vec<T> sum = {};
        for (int64_t i = 0; i < d; ++i) sum = fma(broadcast(v[i]), load(A + i * d + j, n), sum);
        store<T>(to + j, fma(broadcast(factor), sum, load(to + j, n)), n);
    });
}

// q ← q − kick·Sᵀgrad, then z ← z + step·S q unless step is 0, for row r of the block.
template <typename T>
void kick_and_drift_whitened(const Phase<T>& phase, const Target<T>& target, int64_t first,
                             int64_t r, T kick, T step) {
    const int64_t d = target.net.inputs(), at = r * phase.stride;
    const int64_t matrix = (first + r) / target.chains * d * d;
    add_product(phase.p + at, -kick, phase.grad + at, phase.root.rows + matrix, d);
    if (step != 0) add_product(phase.z + at, step, phase.p + at, phase.root.columns + matrix, d);
}

// The first half kick and drift of rows `own` of the block, from the gradient carried in.
template <typename T>
void begin_trajectory(const Phase<T>& phase, const Target<T>& target, int64_t first, Range own) {
    const int64_t count = panels_of<T>(target.net.inputs()) * PANEL<T>;
    for (int64_t r = own.begin; r < own.end; ++r) {
        if (phase.root.rows) {
            kick_and_drift_whitened(phase, target, first, r, T(0.5) * phase.step[r], phase.step[r]);
            continue;
        }
        const int64_t at = r * phase.stride;
        const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
        kick_and_drift(phase.z + at, phase.p + at, phase.grad + at, mass, T(0.5) * phase.step[r],
                       phase.step[r], count);
    }
}

// The kick and drift after a gradient of all columns, of the rows that are this worker's; the last
// kick is a half one.
template <typename T>
void turn_whitened(const Pass<T>& pass, const Target<T>& target, int64_t first,
                   const Phase<T>& phase, bool last) {
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end; ++r) {
        const T step = phase.step[r];
        kick_and_drift_whitened(phase, target, first, r, last ? T(0.5) * step : step,
                                last ? T(0) : step);
    }
    pass.worker.sync();
}

// L leapfrog steps after begin_trajectory, one gradient each; false where the caller was
// interrupted.
template <typename T>
bool leapfrog(const Pass<T>& pass, const Target<T>& target, int64_t first, const Phase<T>& phase,
              int64_t steps) {
    pass.worker.sync();
    for (int64_t l = 1; l <= steps; ++l) {
        const bool last = l == steps;
        const auto epilogue = [&](const Tile<T>& tile) {
            for (int64_t r = 0; r < pass.rows; ++r) {
                const int64_t at = r * phase.stride + tile.first;
                for (int64_t j = 0; j < tile.padded; j += width<T>)
                    store<T>(phase.grad + at + j, load(phase.z + at + j) - load(tile[r] + j));
                if (phase.root.rows) continue;  // which takes the gradient's other columns too
                const T step = phase.step[r];
                const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
                kick_and_drift(phase.z + at, phase.p + at, phase.grad + at, mass,
                               last ? T(0.5) * step : step, last ? T(0) : step, tile.padded);
            }
        };
        log_likelihood_vjp(pass, target, first, phase.z, phase.stride,
                           last ? phase.energies : nullptr, epilogue);
        if (pass.worker.stopped()) return false;
        if (phase.root.rows) turn_whitened(pass, target, first, phase, last);
    }
    return true;
}

// States of rows `own` from the call's memory.
template <typename T>
void load_states(const NetTrajectory<T>& call, const Phase<T>& phase, int64_t first, Range own) {
    const int64_t d = call.target.net.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, at = r * phase.stride;
        copy_padded(phase.z + at, call.z[n], d);
        copy_padded(phase.p + at, call.p[n], d);
        copy_padded(phase.grad + at, call.grad[n], d);
        if (phase.inv_mass)
            copy_padded(phase.inv_mass + at, call.inv_mass[n / call.target.chains], d);
        phase.step[r] = call.step[n];
    }
}

// Ends of rows `own` and their U into the call's memory.
template <typename T>
void finish_trajectory(const NetTrajectory<T>& call, const Phase<T>& phase, int64_t first,
                       Range own) {
    const Target<T>& target = call.target;
    const int64_t d = target.net.inputs(), panels = panels_of<T>(target.net.outputs());
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, at = r * phase.stride;
        call.U[n] = potential_energy(target, n, phase.z + at, phase.energies + r * panels);
        copy(call.z_end[n], phase.z + at, d);
        copy(call.p_end[n], phase.p + at, d);
        copy(call.grad_end[n], phase.grad + at, d);
    }
}

// Whether S of input b is finite, where there is one.
template <typename T>
bool finite_root(const Root<T>& root, int64_t b, int64_t d) {
    return !root.rows || all_finite(root.rows + b * d * d, d * d);
}

// NaN in every result of those of rows `own` that have a non-finite input.
template <typename T>
void mark_nonfinite_rows(const NetTrajectory<T>& call, int64_t first, Range own) {
    const Target<T>& target = call.target;
    const int64_t d = target.net.inputs();
    for (int64_t n = first + own.begin; n < first + own.end; ++n) {
        const int64_t b = n / target.chains;
        const bool finite = all_finite(call.z[n], d) && all_finite(call.p[n], d) &&
                            all_finite(call.grad[n], d) && all_finite(&call.step[n], 1) &&
                            valid_image(target, b) &&
                            (!call.inv_mass.data || all_finite(call.inv_mass[b], d)) &&
                            finite_root(call.root, b, d);
        if (finite) continue;
        call.U[n] = NAN;
        fill(call.z_end[n], T(NAN), d);
        fill(call.p_end[n], T(NAN), d);
        fill(call.grad_end[n], T(NAN), d);
    }
}

template <typename T>
void trajectory_block(const NetTrajectory<T>& call, const Pass<T>& pass, const Phase<T>& phase,
                      int64_t first) {
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    load_states(call, phase, first, own);
    begin_trajectory(phase, call.target, first, own);
    if (!leapfrog(pass, call.target, first, phase, call.leapfrog)) return;
    finish_trajectory(call, phase, first, own);
    mark_nonfinite_rows(call, first, own);
}

template <typename T>
Outcome net_trajectory(const NetTrajectory<T>& call, const Call& how) {
    const Network<T>& net = call.target.net;
    const auto take = [&](Arena& arena, int64_t rows) {
        return take_phase(arena, net, rows, call.inv_mass.data != nullptr, call.root);
    };
    return run_blocks(net, call.N, how, true, take,
                      [&](const Pass<T>& pass, int64_t first, const Phase<T>& phase) {
                          trajectory_block(call, pass, phase, first);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
