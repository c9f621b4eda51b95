// Exact k-means++ seeding (D² sampling; Arthur & Vassilvitskii, SODA 2007) on the CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"

namespace saal {

/// The first row: at random, in proportion to the weights; or the one of largest weighted squared norm (the
/// lowest index, where several have it).
enum class First { kRandom, kArgmax };

/// kPlain updates all weights after each row. kRejection draws from stale weights and accepts a row with
/// probability D² over its stale weight. kSorted, for rows of one number, updates only the rows nearest to
/// the new one. All three draw from the same distribution, but choose different rows for the same uniforms.
enum class Algorithm { kAuto, kPlain, kRejection, kSorted };

struct Options {
    std::int64_t k = 1;
    First first = First::kRandom;
    Algorithm algorithm = Algorithm::kAuto;
    const double* weights = nullptr;    // [N], factors of D²; null for ones
    std::vector<std::int64_t> initial;  // rows chosen before the search
    Uniforms uniforms{};
    int threads = 1;
    std::function<void()> between = [] {};  // called now and then, on the calling thread; may throw
    std::string isa;                        // one of usable_isas(), empty for the fastest
    std::int64_t refresh_every = -1;        // see Refresh::every
    bool potential = false;                 // compute Info::potential, which costs a last refresh
};

struct Info {
    const char* algorithm = "";
    double potential = 0.0;       // Σ weights[i] D²_i after the last row
    std::int64_t candidates = 0;  // rows drawn
    std::int64_t accepted = 0;    // candidates accepted
    std::int64_t refreshes = 0;   // passes over all rows
    std::int64_t distances = 0;   // pairs of a row and a chosen row, bounded or computed
};

struct Seeding {
    std::vector<std::int64_t> rows;
    Info info;
};

/// Chooses `k` different rows of `x`, none of `initial`, in the order drawn (see policy.h).
///
/// The rows do not depend on `threads` or `isa`. An exception of `between` ends the search. Throws
/// std::invalid_argument on bad arguments, on NaN or inf in `x`, and where squares overflow double.
template <class T>
Seeding kmeans_plusplus(const Rows<T>& x, const Options& options);

/// The algorithm that kAuto chooses, by the shape alone.
Algorithm choose_algorithm(std::int64_t rows, std::int64_t width, std::int64_t k, bool factored);

/// The instruction sets that are compiled in, and those that this CPU runs; the fastest last.
std::vector<std::string> built_isas();
std::vector<std::string> usable_isas();

}  // namespace saal
