// The Python binding: raw addresses in, kernels of the chosen instruction-set level, OpenMP.
// Shapes, dtypes and devices were checked in Python; no torch header is needed.
#include "bind_net.h"
#include "bind_rows.h"
#include "binding.h"

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
    module.def("net_pack_bytes_f32", &net_pack_bytes<float>);
    module.def("net_pack_bytes_f64", &net_pack_bytes<double>);
    module.def("net_pack_start_f32", &net_pack_start<float>);
    module.def("net_pack_start_f64", &net_pack_start<double>);
    module.def("net_pack_f32", &net_pack<float>);
    module.def("net_pack_f64", &net_pack<double>);
    module.def("net_forward_f32", &net_forward<float>);
    module.def("net_forward_f64", &net_forward<double>);
    module.def("net_potential_f32", &net_potential<float>);
    module.def("net_potential_f64", &net_potential<double>);
    module.def("net_trajectory_f32", &net_trajectory<float>);
    module.def("net_trajectory_f64", &net_trajectory<double>);
    module.def("net_chain_f32", &net_chain<float>);
    module.def("net_chain_f64", &net_chain<double>);
    module.def("net_jvp_f32", &net_probes<float, &KernelsOf<float>::net_jvp>);
    module.def("net_jvp_f64", &net_probes<double, &KernelsOf<double>::net_jvp>);
    module.def("net_vjp_f32", &net_probes<float, &KernelsOf<float>::net_vjp>);
    module.def("net_vjp_f64", &net_probes<double, &KernelsOf<double>::net_vjp>);
    module.def("net_jacobian_gram_f32", &net_jacobian_gram<float>);
    module.def("net_jacobian_gram_f64", &net_jacobian_gram<double>);
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
