// log p(x | out) of each row and its derivative in out, in one pass.
#pragma once

#include <cmath>

#include "kernels.h"
#include "net/likelihoods.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Σ log p over the row, less the constant; NaN or infinity in out or x makes both results NaN.
template <typename Kind, typename T>
double log_likelihood_row(const T* std, bool valid, const T* out, const T* x, T* score, int64_t D) {
    const Vec<T> zero = {};
    const Stds<Kind, T> stds(std);
    Vec<T> not_finite = zero;
    double total = 0;
    for (int64_t j = 0; j < D; j += block<T>) {
        const int64_t n = D - j < block<T> ? D - j : block<T>;
        total += pixels<Kind, T>(stds.from(j), out + j, x + j, score + j, n);
        for_each_vector<T>(n, [=, &not_finite](int64_t l, int64_t left) VAEFAST_FLAT {
            not_finite += zero * load(out + j + l, left) + zero * load(x + j + l, left);
        });
    }
    const Vec<T> lanes[] = {not_finite};
    if (valid && sum_lanes<T>(lanes) == 0) return total;
    for (int64_t j = 0; j < D; ++j) score[j] = T(NAN);
    return NAN;
}

template <typename T>
void log_likelihood(const LogLikelihood<T>& s, int64_t begin, int64_t end) {
    with_kind(s.likelihood, s.std, [=, &s](auto kind) {
        for (int64_t n = begin; n < end; ++n) {
            const int64_t b = n / s.chains;
            const bool valid = valid_std(s.likelihood, s.std, b, s.D);
            s.logp[n] = double(s.D) * log_density_constant(s.likelihood, s.std, b) +
                        log_likelihood_row<decltype(kind), T>(s.std.at(b), valid, s.out[n], s.x[b],
                                                              s.score[n], s.D);
        }
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
