// Exact k-means++ seeding (D² sampling; Arthur & Vassilvitskii, SODA 2007) on the CPU. Knows nothing of
// Python.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"

namespace saal {

/// How the first row is chosen: at random, in proportion to the weights, or the one of largest weighted
/// squared norm (ties: the lowest index).
enum class First { kRandom, kArgmax };

/// kPlain updates all weights after each row. kRejection draws from stale weights and accepts with
/// probability D² over the stale one. kSorted, for rows of one number, updates only the rows nearest the new
/// one. All three draw from the same distribution, each with rows of its own for the same uniforms.
enum class Algorithm { kAuto, kPlain, kRejection, kSorted };

struct Options {
    std::int64_t k = 1;
    First first = First::kRandom;
    Algorithm algorithm = Algorithm::kAuto;
    const double* weights = nullptr;    // [N], that multiply D²; null for ones
    std::vector<std::int64_t> initial;  // rows chosen before
    Uniforms uniforms{};
    int threads = 1;
    std::function<void()> between = [] {};  // called every now and then on the calling thread; may throw
    std::string isa;                        // one of usable_isas(), empty for the fastest
    std::int64_t refresh_every = -1;        // see Refresh::every
    bool potential = false;                 // whether to compute Info::potential, which costs a last refresh
};

struct Info {
    const char* algorithm = "";
    double potential = 0.0;       // Σ weights[i] D²_i after the last row
    std::int64_t candidates = 0;  // rows drawn
    std::int64_t accepted = 0;    // of them
    std::int64_t refreshes = 0;   // passes over all rows
    std::int64_t distances = 0;   // pairs of a row and a chosen row that were looked at
};

struct Seeding {
    std::vector<std::int64_t> rows;
    Info info;
};

/// Chooses `k` different rows of `x`, none of `initial`, in the order drawn (see kmeans_policy.h).
///
/// The rows do not depend on `threads` or `isa`; what `between` throws ends the search. Throws
/// std::invalid_argument on bad arguments, on NaN or inf in `x`, and where squares overflow double.
template <class T>
Seeding kmeans_plusplus(const Rows<T>& x, const Options& options);

/// What kAuto stands for: by the shape alone.
Algorithm choose_algorithm(std::int64_t rows, std::int64_t numbers, std::int64_t k, bool factored);

/// The instruction sets compiled in, and those of them that this CPU runs; the fastest last.
std::vector<std::string> built_isas();
std::vector<std::string> usable_isas();

}  // namespace saal
