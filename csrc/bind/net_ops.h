// The bindings of the ops on networks.
#pragma once

#include "bind/network.h"

namespace vaefast {
namespace {

template <typename T>
void net_forward(const RowsAt& out, const RowsAt& tape, const RowsAt& z, int64_t N,
                 const LayersAt& net, int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(
        NetForward<T>{rows_at<T>(out), rows_at<const T>(z), N, network(layers), rows_at<T>(tape)},
        threads);
}

// Elements of a row of net_forward's tape.
template <typename T>
int64_t tape_width(const LayersAt& net) {
    const auto layers = layers_at<T>(net);
    return of<T>(*active().kernels).tape_width(network(layers));
}

// x, chains, likelihood, std
using LikelihoodAt = std::tuple<RowsAt, int64_t, int, MatrixAt>;

template <typename T>
Target<T> target(const LikelihoodAt& given, const Layers<T>& layers) {
    const auto& [x, chains, likelihood, std] = given;
    return {rows_at<const T>(x), chains, network(layers), Likelihood(likelihood), std_at<T>(std)};
}

template <typename T>
void net_potential(Address U, const RowsAt& grad, const RowsAt& z, int64_t N, const LayersAt& net,
                   const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(NetPotential<T>{reinterpret_cast<double*>(U), rows_at<T>(grad), rows_at<const T>(z), N,
                           target(like, layers)},
           threads);
}

// rows, columns
using RootAt = std::array<Address, 2>;

template <typename T>
Root<T> root_at(const RootAt& root) {
    return {reinterpret_cast<const T*>(root[0]), reinterpret_cast<const T*>(root[1])};
}

// end: z, p, grad; from: z, p, grad.
template <typename T>
void net_trajectory(const std::array<RowsAt, 3>& end, Address U, const std::array<RowsAt, 3>& from,
                    Address step, const RowsAt& inv_mass, const RootAt& root, int64_t N,
                    int64_t leapfrog, const LayersAt& net, const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(NetTrajectory<T>{rows_at<T>(end[0]), rows_at<T>(end[1]), rows_at<T>(end[2]),
                            reinterpret_cast<double*>(U), rows_at<const T>(from[0]),
                            rows_at<const T>(from[1]), rows_at<const T>(from[2]),
                            reinterpret_cast<const T*>(step), rows_at<const T>(inv_mass),
                            root_at<T>(root), N, leapfrog, target(like, layers)},
           threads);
}

// into: z, p, x, and of each row its share of x; given: z, p, upstream, upstream_p (address 0 for
// zeros); rows: accepted (0 for all), step.
template <typename T>
void net_trajectory_vjp(const std::array<RowsAt, 4>& into, const std::array<RowsAt, 4>& given,
                        const std::array<Address, 2>& rows, const RowsAt& inv_mass, int64_t N,
                        int64_t leapfrog, const LayersAt& net, const LikelihoodAt& like,
                        int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(NetTrajectoryVjp<T>{rows_at<T>(into[0]), rows_at<T>(into[1]), rows_at<T>(into[2]),
                               rows_at<T>(into[3]), rows_at<const T>(given[0]),
                               rows_at<const T>(given[1]), rows_at<const T>(given[2]),
                               rows_at<const T>(given[3]), reinterpret_cast<const bool*>(rows[0]),
                               reinterpret_cast<const T*>(rows[1]), rows_at<const T>(inv_mass), N,
                               leapfrog, target(like, layers)},
           threads);
}

// state: z, grad; results: U, accepted, divergent, draws, energies; rows: step, index;
// counts: N, leapfrog, first_step, steps, thin, kept.
template <typename T>
void net_chain(const std::array<RowsAt, 2>& state, const std::array<Address, 5>& results,
               const std::array<Address, 2>& rows, const RowsAt& inv_mass, const RootAt& root,
               const std::array<int64_t, 6>& counts, double jitter, uint64_t seed,
               const LayersAt& net, const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(net);
    const auto& [N, leapfrog, first_step, steps, thin, kept] = counts;
    run<T>(NetChain<T>{rows_at<T>(state[0]),
                       rows_at<T>(state[1]),
                       reinterpret_cast<double*>(results[0]),
                       reinterpret_cast<int64_t*>(results[1]),
                       reinterpret_cast<int64_t*>(results[2]),
                       reinterpret_cast<T*>(results[3]),
                       reinterpret_cast<double*>(results[4]),
                       reinterpret_cast<const T*>(rows[0]),
                       rows_at<const T>(inv_mass),
                       root_at<T>(root),
                       reinterpret_cast<const int64_t*>(rows[1]),
                       N,
                       leapfrog,
                       first_step,
                       steps,
                       thin,
                       kept,
                       jitter,
                       seed,
                       target(like, layers)},
           threads);
}

// data: mean, std, centre; rows: r, index; counts: B, first_sample, samples.
template <typename T>
void decode_distance(Address hits, const std::array<RowsAt, 3>& data,
                     const std::array<Address, 2>& rows, const std::array<int64_t, 3>& counts,
                     uint64_t seed, const LayersAt& net, int threads) {
    const auto layers = layers_at<T>(net);
    const auto& [B, first_sample, samples] = counts;
    run<T>(DecodeDistance<T>{reinterpret_cast<int64_t*>(hits), rows_at<const T>(data[0]),
                             rows_at<const T>(data[1]), rows_at<const T>(data[2]),
                             reinterpret_cast<const T*>(rows[0]),
                             reinterpret_cast<const int64_t*>(rows[1]), B, first_sample, samples,
                             seed, network(layers)},
           threads);
}

// results: y, products (address 0 where they are not wanted); given: x, probes, net_forward's tape
// (address 0 for none); counts: B, K.
template <template <typename> class Task, typename T>
void net_probes(const std::array<RowsAt, 2>& results, Address sq,
                const std::array<RowsAt, 3>& given, bool shared,
                const std::array<int64_t, 2>& counts, const LayersAt& net, int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(Task<T>{{rows_at<T>(results[0]), reinterpret_cast<double*>(sq), rows_at<T>(results[1]),
                    rows_at<const T>(given[0]), rows_at<const T>(given[1]), shared, counts[0],
                    counts[1], network(layers), rows_at<T>(given[2])}},
           threads);
}
template <typename T>
constexpr auto net_jvp = net_probes<NetJvp, T>;
template <typename T>
constexpr auto net_vjp = net_probes<NetVjp, T>;

// inv_std: address 0 for ones.
template <typename T>
void net_jacobian_gram(Address out, const RowsAt& x, const RowsAt& inv_std, int64_t B,
                       const LayersAt& net, int threads) {
    const auto layers = layers_at<T>(net);
    run<T>(NetJacobianGram<T>{reinterpret_cast<T*>(out), rows_at<const T>(x),
                              rows_at<const T>(inv_std), B, network(layers)},
           threads);
}

}  // namespace
}  // namespace vaefast
