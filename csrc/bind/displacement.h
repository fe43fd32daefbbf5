// The bindings of bounds of a network's displacement: float64 alone.
#pragma once

#include "bind/network.h"

namespace vaefast {
namespace {

// least, steepest, error, two turns, and 1 where it is straight
using CurveAt = std::array<double, 6>;

// results: pre-activations of all layers, rounding of the first's.
void displacement_centres(const std::array<RowsAt, 2>& results, const RowsAt& x, int64_t B,
                          const LayersAt& net, int threads) {
    const auto layers = layers_at<double>(net);
    run_kernel(active().kernels->displacement_centres,
               DisplacementCentres{rows_at<double>(results[0]), rows_at<double>(results[1]),
                                   rows_at<const double>(x), B, network(layers)},
               threads);
}

// results: gram, rest, rounding; ranges: low and high of units (address 0 where they are not
// wanted); centres: pre-activations, rounding of the first layer's; scale: address 0 for ones;
// factor: F, its columns and whether it is a triangle; norms: of features, of units.
void net_displacement_bound(const std::array<Address, 3>& results,
                            const std::array<RowsAt, 2>& ranges,
                            const std::array<RowsAt, 2>& centres, Address radius,
                            const RowsAt& scale, const std::array<int64_t, 2>& counts,
                            const std::tuple<RowsAt, int64_t, bool>& factor,
                            const std::array<Address, 2>& norms, double slack,
                            const std::vector<CurveAt>& curves, const LayersAt& net, int threads) {
    const auto layers = layers_at<double>(net);
    std::vector<CurveFacts> facts;
    for (const auto& [least, steepest, error, turn, other, straight] : curves)
        facts.push_back({least, steepest, error, {turn, other}, straight != 0});
    const auto doubles = [](Address at) { return reinterpret_cast<double*>(at); };
    run_kernel(
        active().kernels->net_displacement_bound,
        NetDisplacementBound{doubles(results[0]), doubles(results[1]), doubles(results[2]),
                             rows_at<double>(ranges[0]), rows_at<double>(ranges[1]),
                             rows_at<const double>(centres[0]), rows_at<const double>(centres[1]),
                             doubles(radius), rows_at<const double>(scale), counts[0], counts[1],
                             rows_at<const double>(std::get<0>(factor)), std::get<1>(factor),
                             std::get<2>(factor), doubles(norms[0]), doubles(norms[1]), slack,
                             facts.data(), network(layers)},
        threads);
}

}  // namespace
}  // namespace vaefast
