// L leapfrog steps on an MLP decoder's posterior: state and activations of a block stay in cache.
#pragma once

#include "net_potential.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// The chains of one block: rows [·, d] are `stride` apart and padded with zeros.
template <typename T>
struct Phase {
    int64_t stride;
    T *z, *p, *grad;
    T* inv_mass;       // null for unit mass
    T* step;           // [rows]
    double* energies;  // [rows, panels of D], shares of log p at the end
};

template <typename T>
Phase<T> take_phase(Arena& arena, const Network<T>& mlp, int64_t rows, bool mass) {
    const int64_t stride = padded<T>(mlp.inputs()), size = rows * stride;
    T *z = arena.take<T>(size), *p = arena.take<T>(size), *grad = arena.take<T>(size);
    return {stride,
            z,
            p,
            grad,
            mass ? arena.take<T>(size) : nullptr,
            arena.take<T>(rows),
            arena.take<double>(rows * panels_of<T>(mlp.outputs()))};
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

// The first half kick and drift of rows `own`, from the gradient carried in.
template <typename T>
void start(const Phase<T>& phase, Range own, int64_t d) {
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t at = r * phase.stride;
        const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
        kick_and_drift(phase.z + at, phase.p + at, phase.grad + at, mass, T(0.5) * phase.step[r],
                       phase.step[r], panels_of<T>(d) * PANEL<T>);
    }
}

// The steps after `start`, one gradient each; false where the caller was interrupted.
template <typename T>
bool follow(const Pass<T>& pass, const Target<T>& target, int64_t first, const Phase<T>& phase,
            int64_t leapfrog) {
    pass.worker.sync();
    for (int64_t l = 1; l <= leapfrog; ++l) {
        const bool last = l == leapfrog;
        const auto arrive = [&](const Tile<T>& tile) {
            for (int64_t r = 0; r < pass.rows; ++r) {
                const int64_t at = r * phase.stride + tile.first;
                for (int64_t j = 0; j < tile.padded; j += width<T>)
                    store<T>(phase.grad + at + j, load(phase.z + at + j) - load(tile[r] + j));
                const T step = phase.step[r];
                const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
                kick_and_drift(phase.z + at, phase.p + at, phase.grad + at, mass,
                               last ? T(0.5) * step : step, last ? T(0) : step, tile.padded);
            }
        };
        pull_score(pass, target, first, phase.z, phase.stride, last ? phase.energies : nullptr,
                   arrive);
        if (pass.worker.stopped()) return false;
    }
    return true;
}

template <typename T>
void trajectory_block(const NetTrajectory<T>& call, const Pass<T>& pass, const Phase<T>& phase,
                      int64_t first) {
    const Target<T>& target = call.target;
    const int64_t d = target.mlp.inputs(), D = target.mlp.outputs(), stride = phase.stride;
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r;
        copy_padded(phase.z + r * stride, call.z[n], d);
        copy_padded(phase.p + r * stride, call.p[n], d);
        copy_padded(phase.grad + r * stride, call.grad[n], d);
        if (phase.inv_mass)
            copy_padded(phase.inv_mass + r * stride, call.inv_mass[n / target.chains], d);
        phase.step[r] = call.step[n];
    }
    start(phase, own, d);
    if (!follow(pass, target, first, phase, call.leapfrog)) return;
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, at = r * stride;
        call.U[n] = potential_energy(target, phase.z + at, phase.energies + r * panels_of<T>(D));
        copy(call.z_end[n], phase.z + at, d);
        copy(call.p_end[n], phase.p + at, d);
        copy(call.grad_end[n], phase.grad + at, d);
        const bool good = all_finite(call.z[n], d) && all_finite(call.p[n], d) &&
                          all_finite(call.grad[n], d) && all_finite(&call.step[n], 1) &&
                          all_finite(target.x[n / target.chains], D) &&
                          (!phase.inv_mass || all_finite(phase.inv_mass + at, d));
        if (good) continue;
        call.U[n] = NAN;
        fill(call.z_end[n], T(NAN), d);
        fill(call.p_end[n], T(NAN), d);
        fill(call.grad_end[n], T(NAN), d);
    }
}

template <typename T>
Outcome net_trajectory(const NetTrajectory<T>& call, const Call& how) {
    const Network<T>& mlp = call.target.mlp;
    const auto take = [&](Arena& arena, int64_t rows) {
        return take_phase(arena, mlp, rows, call.inv_mass.data != nullptr);
    };
    return run_blocks(mlp, call.N, how, true, take,
                      [&](const Pass<T>& pass, int64_t first, const Phase<T>& phase) {
                          trajectory_block(call, pass, phase, first);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
