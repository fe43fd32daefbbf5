// What the Python binding is made of: levels, addresses, networks, threads and signals.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdlib>
#include <cstring>
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

using RowsAt = std::pair<Address, int64_t>;  // address, elements from row to row

template <typename T>
Rows<T> rows_at(const RowsAt& rows) {
    return rows_at<T>(rows.first, rows.second);
}

// address, elements from row to row, from column to column: 0 or 1
using MatrixAt = std::tuple<Address, int64_t, int64_t>;

template <typename T>
Std<T> std_at(const MatrixAt& given) {
    const auto& [address, row, column] = given;
    return {reinterpret_cast<const T*>(address), row, column};
}

// A signal handler raised: the error stays with this thread until run() throws it.
bool interrupted() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

// The kernel of a task's type.
#define VAEFAST_KERNEL_OF(name, Task)         \
    template <typename T>                     \
    auto kernel_of(const Task<T>&) {          \
        return of<T>(*active().kernels).name; \
    }
VAEFAST_NETWORK_OPS(VAEFAST_KERNEL_OF)
#undef VAEFAST_KERNEL_OF

template <typename Task>
void run_kernel(Outcome (*kernel)(const Task&, const Call&), const Task& task, int threads) {
    Outcome outcome;
    {
        py::gil_scoped_release release;
        outcome = kernel(task, {threads, interrupted});
    }
    if (outcome == Outcome::interrupted) throw py::error_already_set();
    if (outcome == Outcome::no_memory) throw std::bad_alloc();
}

template <typename T, typename Task>
void run(const Task& task, int threads) {
    run_kernel(kernel_of<T>(task), task, threads);
}

}  // namespace
}  // namespace vaefast
