// What the CPU core and the CUDA driver both do on the host: check arguments, explain bad rows, choose the
// first row, and choose uniformly once no weight is left.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kmeans_policy.h"

namespace saal {

inline void check_arguments(std::int64_t rows, std::int64_t dim, std::int64_t k,
                            const std::vector<double>& uniforms) {
    using std::to_string;
    if (rows < 1 || dim < 1)
        throw std::invalid_argument("expected x of at least one row and one column, got [" + to_string(rows) +
                                    ", " + to_string(dim) + "]");
    if (k < 1 || k > rows)
        throw std::invalid_argument("expected 1 <= k <= " + to_string(rows) +
                                    " (the number of rows), got k=" + to_string(k));
    if (static_cast<std::int64_t>(uniforms.size()) != k)
        throw std::invalid_argument("expected k=" + to_string(k) + " uniforms, got " +
                                    to_string(uniforms.size()));
    for (const double u : uniforms)
        if (!(u >= 0.0 && u < 1.0))
            throw std::invalid_argument("expected uniforms in [0, 1), got " + to_string(u));
}

[[noreturn]] inline void throw_overflow() {
    throw std::invalid_argument(
        "expected x small enough for its squared distances and their sum to fit float64, got an overflow; "
        "scale x down");
}

[[noreturn]] inline void throw_not_finite(std::int64_t row) {
    throw std::invalid_argument("expected finite values in x, got NaN or inf first in row " +
                                std::to_string(row));
}

/// The row of largest squared norm, the first of equals. Throws for the first row whose norm isn't finite:
/// `fetch(row)` returns that row's values, to tell NaN or inf from an overflow of finite ones.
template <class Fetch>
std::int64_t check_norms(const double* norms, std::int64_t rows, const Fetch& fetch) {
    std::int64_t largest = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
        if (!std::isfinite(norms[i])) {
            for (const auto value : fetch(i))
                if (!std::isfinite(value)) throw_not_finite(i);
            throw_overflow();
        }
        if (norms[i] > norms[largest]) largest = i;
    }
    return largest;
}

/// The floor(u * left)-th of the `left` rows that aren't in `taken` (sorted), which it is added to.
inline std::int64_t take_unchosen(std::vector<std::int64_t>& taken, std::int64_t rows, double u) {
    std::int64_t row = uniform_index(u, rows - static_cast<std::int64_t>(taken.size()));
    // `row` unchosen ones come before it; skip the chosen among them. taken[m] - m, the number of unchosen
    // rows before taken[m], never falls with m: bisect it.
    std::size_t low = 0;
    std::size_t high = taken.size();
    while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (taken[middle] - static_cast<std::int64_t>(middle) <= row)
            low = middle + 1;
        else
            high = middle;
    }
    row += static_cast<std::int64_t>(low);
    taken.insert(taken.begin() + static_cast<std::ptrdiff_t>(low), row);
    return row;
}

/// Fills chosen[done...] with rows not chosen before, each uniform among those: draw t by uniform t.
inline void fill_unchosen(std::vector<std::int64_t>& chosen, std::size_t done, std::int64_t rows,
                          const std::vector<double>& uniforms) {
    std::vector<std::int64_t> taken(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(done));
    std::sort(taken.begin(), taken.end());
    for (std::size_t t = done; t < chosen.size(); ++t) chosen[t] = take_unchosen(taken, rows, uniforms[t]);
}

}  // namespace saal
