// Where a random number comes from.
#pragma once

#include <cstdint>

namespace vaefast {

// What a random number is for: vaefast.philox.Use.
enum class Use : uint32_t {
    momentum = 1,
    accept,
    jitter,
    latent,
    initial,
    start,
    radius,
    damage,
    fresh,
    probe,
    posterior,
    margin,
};

// Where random numbers come from, but for the element; index below 2⁴⁴, lane below 2¹².
struct Counter {
    uint64_t seed;
    int64_t index;
    uint32_t step, lane;
    Use use;
};

}  // namespace vaefast
