// The Python binding: raw addresses in, kernels of the chosen instruction-set level, OpenMP.
// Shapes, dtypes and devices were checked in Python; no torch header is needed.
#include "bind/binding.h"
#include "bind/displacement.h"
#include "bind/net_ops.h"
#include "bind/row_ops.h"

// A function of this name in both precisions.
#define VAEFAST_DEFINE(name, ...)          \
    module.def(#name "_f32", name<float>); \
    module.def(#name "_f64", name<double>);

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
    VAEFAST_NETWORK_OPS(VAEFAST_DEFINE)
    VAEFAST_DEFINE(net_pack_bytes)
    VAEFAST_DEFINE(net_pack_start)
    VAEFAST_DEFINE(tape_width)
    VAEFAST_DEFINE(pgd_step)
    VAEFAST_DEFINE(leapfrog_step)
    VAEFAST_DEFINE(log_likelihood)
    VAEFAST_DEFINE(philox_normal)
    VAEFAST_DEFINE(activate)
    VAEFAST_DEFINE(multiply_slope)
    VAEFAST_DEFINE(evaluate)
    module.def("displacement_centres_f64", displacement_centres);
    module.def("net_displacement_bound_f64", net_displacement_bound);
    module.def("philox_integers", philox_integers);
    module.def("philox_uniform", philox_uniform);
}
