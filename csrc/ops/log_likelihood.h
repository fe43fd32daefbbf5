// log p(x | out) of each row and its derivative in out, in one pass.
#pragma once

#include <cmath>

#include "kernels.h"
#include "net/likelihoods.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Σ log p over the row, less the constant; NaN or infinity in out or x makes both results NaN.
template <Likelihood likelihood, typename T>
double log_likelihood_row(T obs_std, const T* out, const T* x, T* score, int64_t D) {
    const Vec<T> zero = {};
    Vec<T> not_finite = zero;
    double total = 0;
    for (int64_t j = 0; j < D; j += block<T>) {
        const int64_t n = D - j < block<T> ? D - j : block<T>;
        total += pixels<likelihood, T>(obs_std, out + j, x + j, score + j, n);
        for_each_vector<T>(n, [=, &not_finite](int64_t l, int64_t left) VAEFAST_FLAT {
            not_finite += zero * load(out + j + l, left) + zero * load(x + j + l, left);
        });
    }
    const Vec<T> lanes[] = {not_finite};
    if (sum_lanes<T>(lanes) == 0) return total;
    for (int64_t j = 0; j < D; ++j) score[j] = T(NAN);
    return NAN;
}

template <typename T>
void log_likelihood(const LogLikelihood<T>& s, int64_t begin, int64_t end) {
    const double constant = double(s.D) * log_density_constant(s.likelihood, s.obs_std);
    with_likelihood(s.likelihood, [=, &s](auto tag) {
        for (int64_t n = begin; n < end; ++n)
            s.logp[n] = constant + log_likelihood_row<decltype(tag)::value, T>(
                                       T(s.obs_std), s.out[n], s.x[n / s.chains], s.score[n], s.D);
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
