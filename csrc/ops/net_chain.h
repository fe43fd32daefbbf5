// T transitions of Hamiltonian Monte Carlo on a network decoder's posterior: momenta, trajectories,
// Metropolis; a block of chains runs all of them before the next one starts.
#pragma once

#include "ops/net_trajectory.h"
#include "simd/philox.h"

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
Chains<T> take_chains(Arena& arena, const Network<T>& net, int64_t rows, bool mass, Root<T> root) {
    const Phase<T> phase = take_phase(arena, net, rows, mass, root);
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

// Fresh momenta and the step of transition t for rows `own` of the block, which remember where they
// started and take the first half kick.
template <typename T>
void begin_transition(const NetChain<T>& call, const Chains<T>& chains, int64_t first, Range own,
                      int64_t t) {
    const Phase<T>& phase = chains.phase;
    const int64_t d = call.target.net.inputs();
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
    begin_trajectory(phase, call.target, first, own);
}

// The energies at a trajectory's end.
struct End {
    double U, kinetic;
};

template <typename T>
End finish_trajectory(const NetChain<T>& call, const Phase<T>& phase, int64_t first, int64_t r) {
    const int64_t d = call.target.net.inputs(), panels = panels_of<T>(call.target.net.outputs());
    const int64_t at = r * phase.stride;
    const T* mass = phase.inv_mass ? phase.inv_mass + at : nullptr;
    return {potential_energy(call.target, first + r, phase.z + at, phase.energies + r * panels),
            kinetic_energy(phase.p + at, mass, d)};
}

// Accept or reject the ends of transition t.
template <typename T>
void metropolis_accept(const NetChain<T>& call, const Chains<T>& chains, int64_t first, Range own,
                       int64_t t) {
    const Phase<T>& phase = chains.phase;
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, at = r * phase.stride;
        const End end = finish_trajectory(call, phase, first, r);
        const double error = end.U + end.kinetic - (call.U[n] + chains.kinetic[r]);
        const bool divergent = !(error - error == 0) || error > DIVERGENCE;
        const double probability = divergent ? 0 : error > 0 ? __builtin_exp(-error) : 1;
        if (uniform(counter_of(call, n, t, Use::accept), 0) < probability) {
            call.U[n] = end.U;
            ++call.accepted[n];
        } else {
            std::memcpy(phase.z + at, chains.z + at, phase.stride * sizeof(T));
            std::memcpy(phase.grad + at, chains.grad + at, phase.stride * sizeof(T));
            call.divergent[n] += divergent;
        }
    }
}

// The states after a transition become draw `draw` of those that are kept.
template <typename T>
void store_transition(const NetChain<T>& call, const Phase<T>& phase, int64_t first, Range own,
                      int64_t draw) {
    const int64_t d = call.target.net.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t at = (first + r) * call.kept + draw;
        copy(call.draws + at * d, phase.z + r * phase.stride, d);
        call.energies[at] = call.U[first + r];
    }
}

// U = NaN where an input of the row is not finite: such a chain diverges at every transition.
template <typename T>
void mark_nonfinite_rows(const NetChain<T>& call, int64_t first, Range own) {
    const int64_t d = call.target.net.inputs();
    for (int64_t n = first + own.begin; n < first + own.end; ++n) {
        const int64_t b = n / call.target.chains;
        const bool finite = all_finite(call.z[n], d) && all_finite(call.grad[n], d) &&
                            all_finite(&call.U[n], 1) && all_finite(&call.step[b], 1) &&
                            valid_image(call.target, b) &&
                            (!call.inv_mass.data || all_finite(call.inv_mass[b], d)) &&
                            finite_root(call.root, b, d);
        if (!finite) call.U[n] = NAN;
    }
}

// The block's start: states of rows `own` from the call's memory.
template <typename T>
void load_states(const NetChain<T>& call, const Phase<T>& phase, int64_t first, Range own) {
    const int64_t d = call.target.net.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, b = n / call.target.chains, at = r * phase.stride;
        copy_padded(phase.z + at, call.z[n], d);
        copy_padded(phase.grad + at, call.grad[n], d);
        fill(phase.p + at, T(0), phase.stride);
        if (phase.inv_mass) copy_padded(phase.inv_mass + at, call.inv_mass[b], d);
    }
}

template <typename T>
void chain_block(const NetChain<T>& call, const Pass<T>& pass, const Chains<T>& chains,
                 int64_t first) {
    const Phase<T>& phase = chains.phase;
    const int64_t d = call.target.net.inputs();
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    load_states(call, phase, first, own);
    mark_nonfinite_rows(call, first, own);
    int64_t draw = 0;
    for (int64_t t = call.first_step; t < call.first_step + call.steps; ++t) {
        begin_transition(call, chains, first, own, t);
        if (!leapfrog(pass, call.target, first, phase, call.leapfrog)) return;
        metropolis_accept(call, chains, first, own, t);
        if (call.thin && (t + 1) % call.thin == 0)
            store_transition(call, phase, first, own, draw++);
    }
    for (int64_t r = own.begin; r < own.end; ++r) {
        copy(call.z[first + r], phase.z + r * phase.stride, d);
        copy(call.grad[first + r], phase.grad + r * phase.stride, d);
    }
}

template <typename T>
Outcome net_chain(const NetChain<T>& call, const Call& how) {
    const Network<T>& net = call.target.net;
    const auto take = [&](Arena& arena, int64_t rows) {
        return take_chains(arena, net, rows, call.inv_mass.data != nullptr, call.root);
    };
    return run_blocks(net, call.N, how, true, take,
                      [&](const Pass<T>& pass, int64_t first, const Chains<T>& chains) {
                          chain_block(call, pass, chains, first);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
