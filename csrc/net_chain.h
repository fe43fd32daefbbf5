// T transitions of Hamiltonian Monte Carlo on an MLP decoder's posterior: momenta, trajectories,
// Metropolis; a block of chains runs all of them before the next one starts.
#pragma once

#include "net_trajectory.h"
#include "philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr double DIVERGENCE = 1000;  // nats of energy error above which a trajectory diverges

// What a block's chains fall back to on rejection: rows of Phase::stride elements.
template <typename T>
struct Chains {
    Phase<T> phase;
    T *z, *grad;
    double* kinetic;  // [rows], at the start of the transition
};

template <typename T>
Chains<T> take_chains(Arena& arena, const Network<T>& mlp, int64_t rows, bool mass) {
    const Phase<T> phase = take_phase(arena, mlp, rows, mass);
    return {phase, arena.take<T>(rows * phase.stride), arena.take<T>(rows * phase.stride),
            arena.take<double>(rows)};
}

// ½ pᵀM⁻¹p.
template <typename T>
double kinetic_energy(const T* p, const T* inv_mass, int64_t d) {
    double sum = 0;
    for (int64_t j = 0; j < d; ++j) {
        const double square = double(p[j]) * double(p[j]);
        sum += inv_mass ? square * double(inv_mass[j]) : square;
    }
    return 0.5 * sum;
}

// The counter of row n's numbers in transition t.
template <typename T>
Counter counter_of(const NetChain<T>& call, int64_t n, int64_t t, Use use) {
    const int64_t chains = call.target.chains;
    const uint32_t lane = use == Use::jitter ? 0 : uint32_t(n % chains);
    return {call.seed, call.index[n / chains], uint32_t(t), lane, use};
}

template <typename T>
T jittered_step(const NetChain<T>& call, int64_t n, int64_t t) {
    const T step = call.step[n / call.target.chains];
    if (call.jitter == 0) return step;
    const double u = uniform(counter_of(call, n, t, Use::jitter), 0);
    return T(double(step) * (1.0 + call.jitter * (2.0 * u - 1.0)));
}

// Fresh momenta and the step of transition t for rows `own` of the block.
template <typename T>
void draw_momenta(const NetChain<T>& call, const Chains<T>& chains, int64_t first, Range own,
                  int64_t t) {
    const Phase<T>& phase = chains.phase;
    const int64_t d = call.target.mlp.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t at = r * phase.stride;
        T* p = phase.p + at;
        const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
        normals(counter_of(call, first + r, t, Use::momentum), p, d);
        if (mass)
            for (int64_t j = 0; j < d; ++j) p[j] /= T(__builtin_sqrt(mass[j]));
        phase.step[r] = jittered_step(call, first + r, t);
        chains.kinetic[r] = kinetic_energy(p, mass, d);
        std::memcpy(chains.z + at, phase.z + at, phase.stride * sizeof(T));
        std::memcpy(chains.grad + at, phase.grad + at, phase.stride * sizeof(T));
    }
}

// Accept or reject the ends of transition t.
template <typename T>
void accept(const NetChain<T>& call, const Chains<T>& chains, int64_t first, Range own, int64_t t) {
    const Phase<T>& phase = chains.phase;
    const int64_t d = call.target.mlp.inputs(), panels = panels_of<T>(call.target.mlp.outputs());
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, at = r * phase.stride;
        const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
        const double U = potential_energy(call.target, phase.z + at, phase.energies + r * panels);
        const double end = U + kinetic_energy(phase.p + at, mass, d);
        const double error = end - (call.U[n] + chains.kinetic[r]);
        const bool divergent = !(error - error == 0) || error > DIVERGENCE;
        const double probability = divergent ? 0 : error > 0 ? __builtin_exp(-error) : 1;
        if (uniform(counter_of(call, n, t, Use::accept), 0) < probability) {
            call.U[n] = U;
            ++call.accepted[n];
        } else {
            std::memcpy(phase.z + at, chains.z + at, phase.stride * sizeof(T));
            std::memcpy(phase.grad + at, chains.grad + at, phase.stride * sizeof(T));
            call.divergent[n] += divergent;
        }
    }
}

// Keep the states after transition t as draw number `kept`.
template <typename T>
void keep(const NetChain<T>& call, const Phase<T>& phase, int64_t first, Range own, int64_t kept) {
    const int64_t d = call.target.mlp.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t draw = (first + r) * call.kept + kept;
        copy(call.draws + draw * d, phase.z + r * phase.stride, d);
        call.energies[draw] = call.U[first + r];
    }
}

// The block's start: states in, U = NaN where an input of the row is not finite.
template <typename T>
void load_chains(const NetChain<T>& call, const Phase<T>& phase, int64_t first, Range own) {
    const int64_t d = call.target.mlp.inputs(), D = call.target.mlp.outputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, b = n / call.target.chains, at = r * phase.stride;
        copy_padded(phase.z + at, call.z[n], d);
        copy_padded(phase.grad + at, call.grad[n], d);
        fill(phase.p + at, T(0), phase.stride);
        if (phase.inv_mass) copy_padded(phase.inv_mass + at, call.inv_mass[b], d);
        const bool good = all_finite(call.z[n], d) && all_finite(call.grad[n], d) &&
                          all_finite(&call.U[n], 1) && all_finite(&call.step[b], 1) &&
                          all_finite(call.target.x[b], D) &&
                          (!phase.inv_mass || all_finite(phase.inv_mass + at, d));
        if (!good) call.U[n] = NAN;
    }
}

template <typename T>
void chain_block(const NetChain<T>& call, const Pass<T>& pass, const Chains<T>& chains,
                 int64_t first) {
    const Phase<T>& phase = chains.phase;
    const int64_t d = call.target.mlp.inputs();
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    load_chains(call, phase, first, own);
    int64_t kept = 0;
    for (int64_t t = call.first_step; t < call.first_step + call.steps; ++t) {
        draw_momenta(call, chains, first, own, t);
        start(phase, own, d);
        if (!follow(pass, call.target, first, phase, call.leapfrog)) return;
        accept(call, chains, first, own, t);
        if (call.thin && (t + 1) % call.thin == 0) keep(call, phase, first, own, kept++);
    }
    for (int64_t r = own.begin; r < own.end; ++r) {
        copy(call.z[first + r], phase.z + r * phase.stride, d);
        copy(call.grad[first + r], phase.grad + r * phase.stride, d);
    }
}

template <typename T>
Outcome net_chain(const NetChain<T>& call, const Call& how) {
    const Network<T>& mlp = call.target.mlp;
    const auto take = [&](Arena& arena, int64_t rows) {
        return take_chains(arena, mlp, rows, call.inv_mass.data != nullptr);
    };
    return run_blocks(mlp, call.N, how, true, take,
                      [&](const Pass<T>& pass, int64_t first, const Chains<T>& chains) {
                          chain_block(call, pass, chains, first);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
