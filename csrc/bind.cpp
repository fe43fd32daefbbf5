// The Python binding: raw addresses in, kernels of the chosen instruction-set level, OpenMP.
// Shapes, dtypes and devices were checked in Python; no torch header is needed.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace py = pybind11;

namespace vaefast {

#define VAEFAST_DECLARE(level)    \
    namespace level {             \
    extern const Kernels kernels; \
    }
VAEFAST_DECLARE(plain)
#ifdef VAEFAST_HAS_X86_64_V3
VAEFAST_DECLARE(x86_64_v3)
#endif
#ifdef VAEFAST_HAS_X86_64_V4
VAEFAST_DECLARE(x86_64_v4)
#endif
#ifdef VAEFAST_HAS_NEON
VAEFAST_DECLARE(neon)
#endif

namespace {

struct Level {
    std::string name;
    const Kernels* kernels;
};

// The levels that this processor can run, best first.
std::vector<Level> supported_levels() {
    std::vector<Level> levels;
#ifdef VAEFAST_HAS_X86_64_V4
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        levels.push_back({"x86-64-v4", &x86_64_v4::kernels});
#endif
#ifdef VAEFAST_HAS_X86_64_V3
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        levels.push_back({"x86-64-v3", &x86_64_v3::kernels});
#endif
#ifdef VAEFAST_HAS_NEON
    levels.push_back({"neon", &neon::kernels});
#endif
    levels.push_back({"plain", &plain::kernels});
    return levels;
}

// The best level, or the one that VAEFAST_ISA pins.
Level choose_level() {
    const auto levels = supported_levels();
    const char* pinned = std::getenv("VAEFAST_ISA");
    if (!pinned || !*pinned) return levels.front();
    std::string names;
    for (const auto& level : levels) {
        if (level.name == pinned) return level;
        names += (names.empty() ? "" : ", ") + level.name;
    }
    throw std::runtime_error("VAEFAST_ISA must be one of " + names + " on this processor, got " +
                             pinned);
}

const Level& active() {
    static const Level level = choose_level();
    return level;
}

// Run work(begin, end) over [0, count) on `threads` threads, each a contiguous range whose ends
// are multiples of `grain`; in this thread alone where there is less than one grain a thread.
template <typename Work>
void parallel(int64_t count, int64_t grain, int threads, Work work) {
    const int64_t grains = (count + grain - 1) / grain;
    const int64_t used = grains < threads ? grains : threads;
    if (used <= 1) return work(0, count);
#ifdef _OPENMP
#pragma omp parallel for num_threads(int(used)) schedule(static, 1)
#endif
    for (int64_t t = 0; t < used; ++t) {
        const int64_t begin = grains * t / used * grain, end = grains * (t + 1) / used * grain;
        work(begin, end < count ? end : count);
    }
}

using Address = std::uintptr_t;
template <typename T>
Rows<T> rows_at(Address address, int64_t stride) {
    return {reinterpret_cast<T*>(address), stride};
}

// scalars: alpha, eps, low, high for all rows; rows: address of their [4, B] values, or 0.
template <typename T>
void pgd_step(const std::array<Address, 4>& data, const std::array<int64_t, 4>& strides, int64_t B,
              int64_t D, const std::array<double, 4>& scalars, Address rows, bool l2,
              double norm_eps, int threads) {
    const auto parameter = [&](int64_t k) {
        const T* values = rows ? reinterpret_cast<const T*>(rows) + k * B : nullptr;
        return PerRow<T>{values, T(scalars[k])};
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
                          norm_eps};
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
                    int64_t N, int64_t D, int64_t chains, int likelihood, double obs_std,
                    int threads) {
    const LogLikelihood<T> call{rows_at<const T>(data[0], strides[0]),
                                rows_at<const T>(data[1], strides[1]),
                                reinterpret_cast<double*>(data[2]),
                                rows_at<T>(data[3], strides[2]),
                                D,
                                chains,
                                Likelihood(likelihood),
                                obs_std};
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

using RowsAt = std::pair<Address, int64_t>;  // address, elements from row to row

template <typename T>
Rows<T> rows_at(const RowsAt& rows) {
    return rows_at<T>(rows.first, rows.second);
}

// A network's layers: weight, its row and column stride, bias or 0, outputs, inputs, activation
// and its parameter.
using LayersAt = std::vector<
    std::tuple<Address, int64_t, int64_t, Address, int64_t, int64_t, int, double>>;

template <typename T>
std::vector<Layer<T>> layers_at(const LayersAt& given) {
    std::vector<Layer<T>> layers;
    for (const auto& [weight, row, column, bias, outputs, inputs, activation, parameter] : given)
        layers.push_back({reinterpret_cast<const T*>(weight), row, column,
                          reinterpret_cast<const T*>(bias), outputs, inputs,
                          Activation(activation), T(parameter)});
    return layers;
}

template <typename T>
Network<T> network(const std::vector<Layer<T>>& layers) {
    return {layers.data(), int64_t(layers.size())};
}

// A signal handler raised: the error stays with this thread until run() throws it.
bool interrupted() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

template <typename Task>
void run(Outcome (*kernel)(const Task&, const Call&), const Task& task, int threads) {
    Outcome outcome;
    {
        py::gil_scoped_release release;
        outcome = kernel(task, {threads, interrupted});
    }
    if (outcome == Outcome::interrupted) throw py::error_already_set();
    if (outcome == Outcome::no_memory) throw std::bad_alloc();
}

template <typename T>
void mlp_forward(const RowsAt& out, const RowsAt& z, int64_t N, const LayersAt& mlp, int threads) {
    const auto layers = layers_at<T>(mlp);
    run(of<T>(*active().kernels).mlp_forward,
        MlpForward<T>{rows_at<T>(out), rows_at<const T>(z), N, network(layers)}, threads);
}

// x, chains, likelihood, obs_std
using LikelihoodAt = std::tuple<RowsAt, int64_t, int, double>;

template <typename T>
Target<T> target(const LikelihoodAt& given, const std::vector<Layer<T>>& layers) {
    const auto& [x, chains, likelihood, obs_std] = given;
    return {rows_at<const T>(x), chains, network(layers), Likelihood(likelihood), obs_std};
}

template <typename T>
void mlp_potential(Address U, const RowsAt& grad, const RowsAt& z, int64_t N, const LayersAt& mlp,
                   const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(mlp);
    run(of<T>(*active().kernels).mlp_potential,
        MlpPotential<T>{reinterpret_cast<double*>(U), rows_at<T>(grad), rows_at<const T>(z), N,
                        target(like, layers)},
        threads);
}

// end: z, p, grad; from: z, p, grad.
template <typename T>
void mlp_trajectory(const std::array<RowsAt, 3>& end, Address U, const std::array<RowsAt, 3>& from,
                    Address step, const RowsAt& inv_mass, int64_t N, int64_t leapfrog,
                    const LayersAt& mlp, const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(mlp);
    run(of<T>(*active().kernels).mlp_trajectory,
        MlpTrajectory<T>{rows_at<T>(end[0]), rows_at<T>(end[1]), rows_at<T>(end[2]),
                         reinterpret_cast<double*>(U), rows_at<const T>(from[0]),
                         rows_at<const T>(from[1]), rows_at<const T>(from[2]),
                         reinterpret_cast<const T*>(step), rows_at<const T>(inv_mass), N, leapfrog,
                         target(like, layers)},
        threads);
}

// state: z, grad; results: U, accepted, divergent, draws, energies; rows: step, index;
// counts: N, leapfrog, first_step, steps, thin, kept.
template <typename T>
void mlp_chain(const std::array<RowsAt, 2>& state, const std::array<Address, 5>& results,
               const std::array<Address, 2>& rows, const RowsAt& inv_mass,
               const std::array<int64_t, 6>& counts, double jitter, uint64_t seed,
               const LayersAt& mlp, const LikelihoodAt& like, int threads) {
    const auto layers = layers_at<T>(mlp);
    const auto& [N, leapfrog, first_step, steps, thin, kept] = counts;
    run(of<T>(*active().kernels).mlp_chain,
        MlpChain<T>{rows_at<T>(state[0]), rows_at<T>(state[1]),
                    reinterpret_cast<double*>(results[0]), reinterpret_cast<int64_t*>(results[1]),
                    reinterpret_cast<int64_t*>(results[2]), reinterpret_cast<T*>(results[3]),
                    reinterpret_cast<double*>(results[4]), reinterpret_cast<const T*>(rows[0]),
                    rows_at<const T>(inv_mass), reinterpret_cast<const int64_t*>(rows[1]), N,
                    leapfrog, first_step, steps, thin, kept, jitter, seed, target(like, layers)},
        threads);
}

// data: mean, std, centre; rows: r, index; counts: B, first_sample, samples.
template <typename T>
void decode_distance(Address hits, const std::array<RowsAt, 3>& data,
                     const std::array<Address, 2>& rows, const std::array<int64_t, 3>& counts,
                     uint64_t seed, const LayersAt& mlp, int threads) {
    const auto layers = layers_at<T>(mlp);
    const auto& [B, first_sample, samples] = counts;
    run(of<T>(*active().kernels).decode_distance,
        DecodeDistance<T>{reinterpret_cast<int64_t*>(hits), rows_at<const T>(data[0]),
                          rows_at<const T>(data[1]), rows_at<const T>(data[2]),
                          reinterpret_cast<const T*>(rows[0]),
                          reinterpret_cast<const int64_t*>(rows[1]), B, first_sample, samples, seed,
                          network(layers)},
        threads);
}

template <typename T>
using ProbesKernel = Outcome (*KernelsOf<T>::*)(const MlpProbes<T>&, const Call&);

// results: y, products (address 0 where they are not wanted); given: x, probes; counts: B, K.
template <typename T, ProbesKernel<T> kernel>
void mlp_probes(const std::array<RowsAt, 2>& results, Address sq,
                const std::array<RowsAt, 2>& given, bool shared,
                const std::array<int64_t, 2>& counts, const LayersAt& mlp, int threads) {
    const auto layers = layers_at<T>(mlp);
    run(of<T>(*active().kernels).*kernel,
        MlpProbes<T>{rows_at<T>(results[0]), reinterpret_cast<double*>(sq), rows_at<T>(results[1]),
                     rows_at<const T>(given[0]), rows_at<const T>(given[1]), shared, counts[0],
                     counts[1], network(layers)},
        threads);
}

// inv_std: address 0 for ones.
template <typename T>
void mlp_jacobian_gram(Address out, const RowsAt& x, const RowsAt& inv_std, int64_t B,
                       const LayersAt& mlp, int threads) {
    const auto layers = layers_at<T>(mlp);
    run(of<T>(*active().kernels).mlp_jacobian_gram,
        MlpJacobianGram<T>{reinterpret_cast<T*>(out), rows_at<const T>(x),
                           rows_at<const T>(inv_std), B, network(layers)},
        threads);
}

template <typename T>
void activate(int kind, double parameter, Address a, Address h, Address slope, int64_t count) {
    of<T>(*active().kernels)
        .activate(Activation(kind), T(parameter), reinterpret_cast<const T*>(a),
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

PYBIND11_MODULE(_C, module) {
    using namespace vaefast;
    active();  // an unknown VAEFAST_ISA fails here, at import
    module.def("isa", [] { return active().name; });
    module.def("isa_levels", [] {
        std::vector<std::string> names;
        for (const auto& level : supported_levels()) names.push_back(level.name);
        return names;
    });
#ifdef _OPENMP
    module.attr("openmp") = _OPENMP;
#else
    module.attr("openmp") = 0;
#endif
    module.def("pgd_step_f32", &pgd_step<float>);
    module.def("pgd_step_f64", &pgd_step<double>);
    module.def("leapfrog_step_f32", &leapfrog_step<float>);
    module.def("leapfrog_step_f64", &leapfrog_step<double>);
    module.def("mlp_forward_f32", &mlp_forward<float>);
    module.def("mlp_forward_f64", &mlp_forward<double>);
    module.def("mlp_potential_f32", &mlp_potential<float>);
    module.def("mlp_potential_f64", &mlp_potential<double>);
    module.def("mlp_trajectory_f32", &mlp_trajectory<float>);
    module.def("mlp_trajectory_f64", &mlp_trajectory<double>);
    module.def("mlp_chain_f32", &mlp_chain<float>);
    module.def("mlp_chain_f64", &mlp_chain<double>);
    module.def("mlp_jvp_f32", &mlp_probes<float, &KernelsOf<float>::mlp_jvp>);
    module.def("mlp_jvp_f64", &mlp_probes<double, &KernelsOf<double>::mlp_jvp>);
    module.def("mlp_vjp_f32", &mlp_probes<float, &KernelsOf<float>::mlp_vjp>);
    module.def("mlp_vjp_f64", &mlp_probes<double, &KernelsOf<double>::mlp_vjp>);
    module.def("mlp_jacobian_gram_f32", &mlp_jacobian_gram<float>);
    module.def("mlp_jacobian_gram_f64", &mlp_jacobian_gram<double>);
    module.def("decode_distance_f32", &decode_distance<float>);
    module.def("decode_distance_f64", &decode_distance<double>);
    module.def("philox_integers", &philox_integers);
    module.def("philox_normal_f32", &philox_normal<float>);
    module.def("philox_normal_f64", &philox_normal<double>);
    module.def("philox_uniform", &philox_uniform);
    module.def("activate_f32", &activate<float>);
    module.def("activate_f64", &activate<double>);
    module.def("multiply_slope_f32", &multiply_slope<float>);
    module.def("multiply_slope_f64", &multiply_slope<double>);
    module.def("evaluate_f32", &evaluate<float>);
    module.def("evaluate_f64", &evaluate<double>);
    module.def("log_likelihood_f32", &log_likelihood<float>);
    module.def("log_likelihood_f64", &log_likelihood<double>);
}
