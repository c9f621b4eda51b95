// Exact k-means++ seeding (D² sampling; Arthur & Vassilvitskii, SODA 2007) on the CPU. Knows nothing of
// Python.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kmeans_pass.h"

namespace saal {

/// How the first row is chosen: uniformly, or the one of largest norm (ties: the lowest index).
enum class First { kRandom, kArgmax };

/// Chooses `k` different rows of `x`, in the order drawn; draw t consumes uniforms[t] (see kmeans_policy.h).
///
/// The rows do not depend on `threads` or `isa`. `between_centres` is called on the calling thread after each
/// centre; what it throws ends the search. `isa` is one of `usable_isas()`, empty for the fastest.
/// Throws std::invalid_argument on bad arguments, on NaN or inf in `x`, and where squares overflow double.
template <class T>
std::vector<std::int64_t> kmeans_plusplus(const Matrix<T>& x, std::int64_t k, First first,
                                          const std::vector<double>& uniforms, int threads,
                                          const std::function<void()>& between_centres,
                                          const std::string& isa = "");

/// The instruction sets compiled in, and those of them that this CPU runs; the fastest last.
std::vector<std::string> built_isas();
std::vector<std::string> usable_isas();

}  // namespace saal
