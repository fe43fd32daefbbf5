// The elementary functions one by one, for their tests.
#pragma once

#include "kernels.h"
#include "simd/math.h"
#include "simd/normal.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
void evaluate(Function function, const T* in, T* out, int64_t count) {
    for_each_vector<T>(count, [=](int64_t j, int64_t left) {
        const Vec<T> v = load(in + j, left);
        switch (function) {
            case Function::exp:
                return store<T>(out + j, exp<T>(v), left);
            case Function::expm1:
                return store<T>(out + j, expm1<T>(v), left);
            case Function::log:
                return store<T>(out + j, log<T>(v), left);
            case Function::log1p_unit:
                return store<T>(out + j, log1p_unit<T>(v), left);
            case Function::tanh:
                return store<T>(out + j, tanh<T>(v), left);
            case Function::sigmoid:
                return store<T>(out + j, sigmoid<T>(v), left);
            case Function::softplus:
                return store<T>(out + j, softplus<T>(v), left);
            case Function::normal_cdf:
                return store<T>(out + j, normal<T>(v).cdf, left);
        }
    });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
