// The bindings of what works row by row, and of what only the tests call.
#pragma once

#include "bind/binding.h"

namespace vaefast {
namespace {

// scalars: alpha, eps, low, high for all elements; or given: address (0 for none), row stride and
// column stride of each.
template <typename T>
void pgd_step(const std::array<Address, 4>& data, const std::array<int64_t, 4>& strides, int64_t B,
              int64_t D, const std::array<double, 4>& scalars, const std::vector<MatrixAt>& given,
              bool l2, bool clip_first, double norm_eps, int threads) {
    const auto parameter = [&](size_t k) {
        const auto [address, row, column] = k < given.size() ? given[k] : MatrixAt{};
        return Parameter<T>{reinterpret_cast<const T*>(address), row, column, T(scalars[k])};
    };
    const PgdStep<T> step{rows_at<T>(data[0], strides[0]),
                          rows_at<const T>(data[1], strides[1]),
                          rows_at<const T>(data[2], strides[2]),
                          rows_at<const T>(data[3], strides[3]),
                          D,
                          parameter(0),
                          parameter(1),
                          parameter(2),
                          parameter(3),
                          norm_eps,
                          clip_first};
    const KernelsOf<T>& k = of<T>(*active().kernels);
    constexpr int64_t grain = 16384;  // elements: below it a second thread costs more than it saves
    py::gil_scoped_release release;
    if (l2)
        parallel(B, grain / D + 1, threads,
                 [&](int64_t b, int64_t e) { k.pgd_step_l2(step, b, e); });
    else
        parallel(B * D, grain, threads, [&](int64_t b, int64_t e) { k.pgd_step_linf(step, b, e); });
}

// data: z, p, grad, inv_mass (or 0); step: address of [N].
template <typename T>
void leapfrog_step(const std::array<Address, 4>& data, const std::array<int64_t, 4>& strides,
                   Address step, int64_t N, int64_t d, int64_t chains, double kick, bool drift,
                   int threads) {
    const LeapfrogStep<T> leapfrog{rows_at<T>(data[0], strides[0]),
                                   rows_at<T>(data[1], strides[1]),
                                   rows_at<const T>(data[2], strides[2]),
                                   rows_at<const T>(data[3], strides[3]),
                                   reinterpret_cast<const T*>(step),
                                   d,
                                   chains,
                                   T(kick),
                                   drift};
    const KernelsOf<T>& k = of<T>(*active().kernels);
    py::gil_scoped_release release;
    parallel(N, 16384 / (d + 1) + 1, threads,
             [&](int64_t b, int64_t e) { k.leapfrog_step(leapfrog, b, e); });
}

// data: out, x, logp, score; strides: of out, x, score.
template <typename T>
void log_likelihood(const std::array<Address, 4>& data, const std::array<int64_t, 3>& strides,
                    int64_t N, int64_t D, int64_t chains, int likelihood, const MatrixAt& std,
                    int threads) {
    const LogLikelihood<T> call{rows_at<const T>(data[0], strides[0]),
                                rows_at<const T>(data[1], strides[1]),
                                reinterpret_cast<double*>(data[2]),
                                rows_at<T>(data[3], strides[2]),
                                D,
                                chains,
                                Likelihood(likelihood),
                                std_at<T>(std)};
    const KernelsOf<T>& k = of<T>(*active().kernels);
    py::gil_scoped_release release;
    parallel(N, 4096 / (D + 1) + 1, threads,
             [&](int64_t b, int64_t e) { k.log_likelihood(call, b, e); });
}

// [rows, count] integers of elements [first, first + count); index: [rows] int64.
void philox_integers(uint64_t seed, Address index, int64_t rows, uint32_t step, uint32_t lane,
                     uint32_t use, int64_t first, int64_t count, Address out) {
    for (int64_t i = 0; i < rows; ++i)
        active().kernels->integers(
            {seed, reinterpret_cast<const int64_t*>(index)[i], step, lane, Use(use)}, first,
            reinterpret_cast<uint32_t*>(out) + i * count, count);
}

// [rows, count] normals of elements [0, count).
template <typename T>
void philox_normal(uint64_t seed, Address index, int64_t rows, uint32_t step, uint32_t lane,
                   uint32_t use, int64_t count, Address out) {
    for (int64_t i = 0; i < rows; ++i)
        of<T>(*active().kernels)
            .normals({seed, reinterpret_cast<const int64_t*>(index)[i], step, lane, Use(use)},
                     reinterpret_cast<T*>(out) + i * count, count);
}

double philox_uniform(uint64_t seed, int64_t index, uint32_t step, uint32_t lane, uint32_t use,
                      int64_t element) {
    return active().kernels->uniform({seed, index, step, lane, Use(use)}, element);
}

template <typename T>
void activate(int kind, double p1, double p2, Address a, Address h, Address slope, int64_t count) {
    of<T>(*active().kernels)
        .activate(Activation(kind), {T(p1), T(p2)}, reinterpret_cast<const T*>(a),
                  reinterpret_cast<T*>(h), reinterpret_cast<T*>(slope), count);
}

template <typename T>
void multiply_slope(int kind, Address slope, Address t, int64_t count) {
    of<T>(*active().kernels)
        .multiply_slope(Activation(kind), reinterpret_cast<const T*>(slope),
                        reinterpret_cast<T*>(t), count);
}

template <typename T>
void evaluate(int function, Address in, Address out, int64_t count) {
    of<T>(*active().kernels)
        .evaluate(Function(function), reinterpret_cast<const T*>(in), reinterpret_cast<T*>(out),
                  count);
}

}  // namespace
}  // namespace vaefast
