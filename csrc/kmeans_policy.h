// How k-means++ maps a uniform number to a row: the one definition that the C++ core, the CUDA kernels and
// (in Python) `kmeans_plusplus_reference` share, so that the same uniforms give the same rows bit for bit.
//
//  * Every sum of many terms is a *lane sum* in double: lane l adds the terms l, l + 16, l + 32, ... in this
//    order, then the lanes are folded in halves (l with l + 8, then + 4, + 2, + 1). No product is fused into
//    an addition. The order is fixed, so neither threads nor vector width change a bit.
//  * D² of a row is the lane sum of its squared differences, taken in double.
//  * Weights form a tree of fan 256: rows -> blocks of 256 rows -> groups of 256 blocks. A block's and a
//    group's weight is the lane sum of its children's, the total is the plain running sum over groups.
//  * A uniform u in [0, 1) aims at u * total and walks down the tree, `descend` choosing a child three times.
//
// Everything here has internal linkage on purpose: the core compiles it once per instruction set, and the
// linker must not pick one set's copy for all.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SAAL_HOST_DEVICE __host__ __device__
#else
#define SAAL_HOST_DEVICE
#endif

namespace saal {

constexpr int kLanes = 16;
constexpr int kFan = 256;  // rows in a block, blocks in a group; a multiple of kLanes

/// What `select` writes in place of a row when it cannot draw one.
constexpr std::int64_t kNoWeightLeft = -1;
constexpr std::int64_t kOverflow = -2;

/// How many parts of `size` hold `count` things.
SAAL_HOST_DEVICE static constexpr std::int64_t parts(std::int64_t count, std::int64_t size) {
    return (count + size - 1) / size;
}

/// sum + difference², rounded twice. Host code is compiled with contraction off.
SAAL_HOST_DEVICE static inline double add_square(double sum, double difference) {
#if defined(__CUDA_ARCH__)
    return __dadd_rn(sum, __dmul_rn(difference, difference));
#else
    return sum + difference * difference;
#endif
}

/// A child, and how far into its weight the target lies.
struct Pick {
    std::int64_t index;
    double rest;
};

/// The first child whose running sum exceeds `target`. Where rounding leaves none: the last with any weight.
/// Never a child of weight zero; `index` is -1 only if all are zero. Needs target >= 0.
SAAL_HOST_DEVICE static inline Pick descend(const double* weights, std::int64_t count, double target) {
    Pick pick{-1, 0.0};
    double running = 0.0;
    for (std::int64_t i = 0; i < count; ++i) {
        if (weights[i] > 0.0) {
            pick.index = i;
            pick.rest = target - running;
            running += weights[i];
            if (running > target) break;
        }
    }
    return pick;
}

/// Uniform choice among `count` things: floor(u * count), kept below count.
SAAL_HOST_DEVICE static inline std::int64_t uniform_index(double u, std::int64_t count) {
    const auto index = static_cast<std::int64_t>(u * static_cast<double>(count));
    return index < count ? index : count - 1;
}

}  // namespace saal
