// Rows of numbers: copied, filled, looked through for NaN and infinity.
#pragma once

#include "net/product.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Whether all of v is finite.
template <typename T>
bool all_finite(const T* v, int64_t count) {
    Vec<T> zeros = {};
    for_each_vector<T>(
        count, [&](int64_t j, int64_t n) VAEFAST_FLAT { zeros += load(v + j, n) * Vec<T>{}; });
    return sum_lanes<T>({zeros}) == 0;
}

// memcpy of `count` elements; a row of no elements may have no address.
template <typename T>
void copy(T* to, const T* from, int64_t count) {
    if (count) std::memcpy(to, from, count * sizeof(T));
}

// `count` elements that are followed by zeros up to whole panels.
template <typename T>
void copy_padded(T* to, const T* from, int64_t count) {
    copy(to, from, count);
    for (int64_t j = count; j < panels_of<T>(count) * PANEL<T>; ++j) to[j] = 0;
}

template <typename T>
void fill(T* to, T value, int64_t count) {
    for (int64_t j = 0; j < count; ++j) to[j] = value;
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
