// How k-means++ maps a uniform number to a row. The C++ core, the CUDA kernels and (in Python)
// `kmeans_plusplus_reference` share this definition, so that the same uniforms give the same rows bit for
// bit.
//
//  * Every sum of many terms is a *lane sum* in double: lane l adds the terms l, l + 16, l + 32, ... in this
//    order, then the lanes are folded in halves (l with l + 8, then + 4, + 2, + 1). No compiler fuses a
//    product into an addition. The order is fixed, so neither threads nor vector width change a bit.
//  * D² of a row is the lane sum of its squared differences, taken in double.
//  * Weights form a tree of fan 256: rows -> blocks of 256 rows -> groups of 256 blocks. A block's and a
//    group's weight is the lane sum of its children's, the total is the plain running sum over groups.
//  * A uniform u in [0, 1) aims at u * total and walks down the tree, `descend` choosing a child three times.
//  * Uniforms are numbered. A plain draw t consumes number t. The rejection sampler consumes number 0 for a
//    random first row, and 2m + 1 (where to look) and 2m + 2 (whether to accept) for candidate m.
//  * `Refresh` decides from counts alone when the rejection sampler refreshes its weights.
//
// Everything here has internal linkage: the core compiles it once per instruction set, and the linker must
// not choose one set's copy for all.
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

/// Why a search on a device stops before it has chosen k rows.
constexpr std::int64_t kNoWeightLeft = -1;
constexpr std::int64_t kOverflow = -2;

/// ⌈count / size⌉: how many parts of `size` things hold `count`.
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

/// difference²; adding it to 0 changes nothing.
SAAL_HOST_DEVICE static inline double square(double difference) {
    return difference * difference;
}

/// sum + a · b, rounded twice.
SAAL_HOST_DEVICE static inline double add_product(double sum, double a, double b) {
#if defined(__CUDA_ARCH__)
    return __dadd_rn(sum, __dmul_rn(a, b));
#else
    return sum + a * b;
#endif
}

/// ‖a ⊗ h − b ⊗ g‖² by the squared norms and the factors' products; rounding may leave it a little below 0.
SAAL_HOST_DEVICE static inline double from_products(double norm, double other, double left, double right) {
    const double squared = (norm + other) - 2.0 * (left * right);
    return squared > 0.0 || squared != squared ? squared : 0.0;  // NaN stays, for the checks to find
}

/// Numbered uniforms in [0, 1): the given ones, then hashes of the key and the number (SplitMix64: Steele,
/// Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Uniforms {
    std::uint64_t key;
    const double* given;
    std::int64_t count;

    SAAL_HOST_DEVICE static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

    SAAL_HOST_DEVICE double operator()(std::int64_t number) const {
        if (number < count) return given[number];
        constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15u;
        const std::uint64_t bits = mix(mix(key + kGamma) + (static_cast<std::uint64_t>(number) + 1) * kGamma);
        return static_cast<double>(bits >> 11) * 0x1p-53;
    }
};

/// Decides when to fold the pending centres into the weights: once the rejections expected without it cost
/// more than it does. It counts distances and never looks at a clock, so the rows do not depend on the
/// machine.
struct Refresh {
    std::int64_t rows;               // N
    std::int64_t width;              // numbers in a row
    std::int64_t every;              // refresh at so many pending centres; 0: late; -1: by the counts
    std::int64_t pending = 0;        // centres accepted since the last refresh
    std::int64_t rejected = 0;       // candidates rejected since
    double recently_accepted = 0.0;  // the same two, where the last few count most
    double recently_rejected = 0.0;

    /// Costs in units of one distance in a refresh. A candidate's row may lie anywhere in memory.
    static constexpr double kCandidateDistanceCost = 2.0;
    static constexpr double kCandidateCost = 20000.0;  // in multiplications
    static constexpr double kRowReadCost = 24.0;
    static constexpr double kRecentDecay = 0.875;  // of the recent counts, from one centre to the next

    SAAL_HOST_DEVICE void accept() {
        ++pending;
        recently_accepted = recently_accepted * kRecentDecay + 1.0;
        recently_rejected = recently_rejected * kRecentDecay;
    }
    SAAL_HOST_DEVICE void reject() {
        ++rejected;
        recently_rejected += 1.0;
    }
    SAAL_HOST_DEVICE void done() {
        pending = rejected = 0;
        recently_accepted = recently_rejected = 0.0;
    }

    SAAL_HOST_DEVICE bool due(std::int64_t remaining) const {
        if (pending == 0 || remaining == 0) return false;
        const auto n = static_cast<double>(rows);
        const auto p = static_cast<double>(pending);
        const auto left = static_cast<double>(remaining);
        // Where no true weight is left, only this ends the rejections.
        const double patience = every == 0 ? 64.0 : 0.25;
        if (static_cast<double>(rejected) >= n * patience) return true;
        if (every >= 0) return every > 0 && pending >= every;
        const double lost = left * (recently_rejected / (recently_accepted + 1.0));
        const double candidate =
            (p + left / 2.0) * kCandidateDistanceCost + kCandidateCost / (static_cast<double>(width) + 8.0);
        return lost * candidate >= n * (p + kRowReadCost);
    }
};

/// A child, and how far the target lies into its weight.
struct Pick {
    std::int64_t index;
    double rest;
};

/// The first child whose running sum exceeds `target`, or where rounding leaves none, the last of positive
/// weight. `index` is -1 only if all weights are zero. Needs target >= 0.
SAAL_HOST_DEVICE static inline Pick descend(const double* weights, std::int64_t count, double target) {
    double running = 0.0;
    for (std::int64_t i = 0; i < count; ++i) {
        const double before = running;
        running += weights[i];
        if (running > target) return {i, target - before};  // a weight of 0 leaves `running` as it is
    }
    std::int64_t last = count - 1;
    while (last >= 0 && !(weights[last] > 0.0)) --last;
    running = 0.0;
    for (std::int64_t i = 0; i < last; ++i) running += weights[i];
    return {last, target - running};
}

/// Chooses uniformly among `count` things: floor(u * count), kept below count.
SAAL_HOST_DEVICE static inline std::int64_t uniform_index(double u, std::int64_t count) {
    const auto index = static_cast<std::int64_t>(u * static_cast<double>(count));
    return index < count ? index : count - 1;
}

}  // namespace saal
