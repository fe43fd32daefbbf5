// The potential energy of latents under a network decoder, and its gradient.
#pragma once

#include "net/likelihoods.h"
#include "net/run_blocks.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr double HALF_LOG_TWO_PI = 0.918938533204672741780329736406;

// log_likelihood_block of a likelihood that is known when compiling
template <typename Kind, typename T>
void log_likelihood_rows(const Pass<T>& pass, const Target<T>& target, int64_t first, const T* h,
                         int64_t stride, double* energies) {
    const int64_t last = pass.net.depth - 1;
    const PackedLayer<T>& layer = pass.net[last];
    const Tape<T>& tape = pass.tape;
    const bool has_output_slope = layer.activation != Activation::identity;
    pass.advance(h, stride, layer, [&](const Tile<T>& tile) {
        for (int64_t r = 0; r < pass.rows; ++r) {
            const int64_t at = r * tape.stride[last] + tile.first;
            T* out = tile[r];
            T* up = tape.up[0] + r * tape.up_stride + tile.first;
            const int64_t b = (first + r) / target.chains;
            const T* x = target.x[b] + tile.first;
            activate_row(pass, last, tile, r, out,
                         has_output_slope ? tape.slope[last] + at : nullptr);
            score<Kind>(target.std, b, tile.first, out, x, up, tile.count);
            if (has_output_slope)
                multiply_slope(layer.activation, tape.slope[last] + at, up, tile.padded);
            if (!energies) continue;
            for (int64_t j = 0; j < tile.count; j += PANEL<T>) {
                const int64_t n = tile.count - j < PANEL<T> ? tile.count - j : PANEL<T>;
                energies[r * panels_of<T>(target.net.outputs()) + (tile.first + j) / PANEL<T>] =
                    log_density<Kind>(target.std, b, tile.first + j, out + j, x + j, n);
            }
        }
    });
}

// The last layer's outputs of rows [first, ...) become the cotangent up[0] of its pre-activations;
// energies, where not null, get each panel's share of log p: [rows, panels].
template <typename T>
void log_likelihood_block(const Pass<T>& pass, const Target<T>& target, int64_t first, const T* h,
                          int64_t stride, double* energies) {
    with_kind(target.likelihood, target.std, [&](auto kind) {
        log_likelihood_rows<decltype(kind)>(pass, target, first, h, stride, energies);
    });
    pass.worker.sync();
}

// Whether image b and the stds of its pixels are finite, and the stds positive.
template <typename T>
bool valid_image(const Target<T>& target, int64_t b) {
    const int64_t D = target.net.outputs();
    return all_finite(target.x[b], D) && valid_std(target.likelihood, target.std, b, D);
}

// U of row n of the call at z from the panels' shares of log p, all constants included.
template <typename T>
double potential_energy(const Target<T>& target, int64_t n, const T* z, const double* shares) {
    const int64_t d = target.net.inputs(), D = target.net.outputs();
    double logp = 0, square = 0;
    for (int64_t p = 0; p < panels_of<T>(D); ++p) logp += shares[p];
    for (int64_t j = 0; j < d; ++j) square += double(z[j]) * double(z[j]);
    logp += double(D) * log_density_constant(target.likelihood, target.std, n / target.chains);
    return 0.5 * square + double(d) * HALF_LOG_TWO_PI - logp;
}

// Both passes at z for rows [first, ...) of the call: epilogue(tile) gets Jᵀ ∂log p/∂out, latents
// by columns. z may only change in epilogue. Ends with the team's barrier.
template <typename T, typename Epilogue>
void log_likelihood_vjp(const Pass<T>& pass, const Target<T>& target, int64_t first, const T* z,
                        int64_t stride, double* energies, Epilogue epilogue) {
    const int64_t hidden = pass.net.depth - 1;
    forward_hidden(pass, z, stride, hidden);
    if (hidden) z = pass.tape.post[hidden - 1], stride = pass.tape.stride[hidden - 1];
    log_likelihood_block(pass, target, first, z, stride, energies);
    pass.worker.check_stop();  // between two syncs: no mate still reads what the last look found
    backward_to_input(pass, ONE_EACH, epilogue);
    pass.worker.sync();
}

template <typename T>
void potential_block(const NetPotential<T>& call, const Pass<T>& pass, int64_t first,
                     double* energies) {
    const Target<T>& target = call.target;
    log_likelihood_vjp(pass, target, first, call.z[first], call.z.stride, energies,
                       [&](const Tile<T>& tile) {
                           for (int64_t r = 0; r < pass.rows; ++r)
                               for (int64_t j = 0; j < tile.count; ++j)
                                   call.grad[first + r][tile.first + j] =
                                       call.z[first + r][tile.first + j] - tile[r][j];
                       });
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t n = first + r, d = target.net.inputs(), D = target.net.outputs();
        call.U[n] = potential_energy(target, n, call.z[n], energies + r * panels_of<T>(D));
        if (all_finite(call.z[n], d) && valid_image(target, n / target.chains)) continue;
        call.U[n] = NAN;
        fill(call.grad[n], T(NAN), d);
    }
}

template <typename T>
Outcome net_potential(const NetPotential<T>& call, const Call& how) {
    const Network<T>& net = call.target.net;
    const auto take = [&](Arena& arena, int64_t rows) {
        return arena.take<double>(rows * panels_of<T>(net.outputs()));
    };
    return run_blocks(net, call.N, how, true, take,
                      [&](const Pass<T>& pass, int64_t first, double* energies) {
                          potential_block(call, pass, first, energies);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
