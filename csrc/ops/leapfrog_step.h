// One kick of the momentum and one drift of the position, row by row, in place.
#pragma once

#include <cmath>

#include "kernels.h"
#include "simd/simd.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// z, p, grad, inv_mass [d], inv_mass null for one; z is not looked at without the drift.
// NaN or infinity in an input makes the row NaN.
template <typename T>
void leapfrog_row(T* z, T* p, const T* grad, const T* inv_mass, T step, T kick, bool drift,
                  int64_t d) {
    const Vec<T> zero = {}, kicks = zero - kick * step, steps = zero + step;
    Vec<T> not_finite = zero * steps;
    for_each_vector<T>(d, [=, &not_finite](int64_t j, int64_t left) VAEFAST_FLAT {
        const Vec<T> g = load(grad + j, left), before = load(p + j, left);
        const Vec<T> momentum = fma(kicks, g, before);
        not_finite += zero * g + zero * before;
        store<T>(p + j, momentum, left);
        if (!drift) return;
        const Vec<T> from = load(z + j, left), mass = inv_mass ? load(inv_mass + j, left) : zero;
        not_finite += zero * from + zero * mass;
        store<T>(z + j, fma(steps, inv_mass ? mass * momentum : momentum, from), left);
    });
    const Vec<T> lanes[] = {not_finite};
    if (sum_lanes<T>(lanes) == 0) return;
    for (int64_t j = 0; j < d; ++j) p[j] = T(NAN);
    for (int64_t j = 0; drift && j < d; ++j) z[j] = T(NAN);
}

template <typename T>
void leapfrog_step(const LeapfrogStep<T>& s, int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
        leapfrog_row<T>(s.z[n], s.p[n], s.grad[n],
                        s.inv_mass.data ? s.inv_mass[n / s.chains] : nullptr, s.step[n], s.kick,
                        s.drift, s.d);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
