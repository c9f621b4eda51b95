// The parts of a search that the CPU core and the CUDA driver both do on the host: they check arguments,
// explain bad rows, choose the first row, and choose uniformly once no weight is left.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kmeans/kmeans.h"

namespace saal {

/// Throws for bad weights and initial rows, and where fewer than k rows are left to choose.
inline void check_choice(std::int64_t rows, const Options& options) {
    using std::to_string;
    std::vector<bool> seen(options.initial.empty() ? 0 : static_cast<std::size_t>(rows));
    for (const std::int64_t row : options.initial) {
        if (row < 0 || row >= rows)
            throw std::invalid_argument("expected initial rows in [0, " + to_string(rows) + "), got " +
                                        to_string(row));
        if (seen[static_cast<std::size_t>(row)])
            throw std::invalid_argument("expected different initial rows, got row " + to_string(row) +
                                        " twice");
        seen[static_cast<std::size_t>(row)] = true;
    }
    if (!options.initial.empty() && options.first == First::kArgmax)
        throw std::invalid_argument("expected first='random' with initial rows, got 'argmax'");
    std::int64_t left = rows;
    std::string who = "the number of rows";
    if (options.weights != nullptr) {
        double sum = 0.0;
        left = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
            const double weight = options.weights[i];
            if (!(weight >= 0.0) || !std::isfinite(weight))
                throw std::invalid_argument("expected finite weights >= 0, got " + to_string(weight) +
                                            " for row " + to_string(i));
            left += static_cast<std::int64_t>(weight > 0.0);
            sum += weight;
        }
        if (left == 0) throw std::invalid_argument("expected a weight above 0, got only zeros");
        if (!std::isfinite(sum))
            throw std::invalid_argument("expected weights of a finite sum, got an overflow");
        who = "the number of rows of positive weight";
    }
    if (!options.initial.empty()) {
        for (const auto row : options.initial)
            left -= static_cast<std::int64_t>(options.weights == nullptr || options.weights[row] > 0.0);
        who += " that aren't initial";
    }
    if (options.k < 1 || options.k > left)
        throw std::invalid_argument("expected 1 <= k <= " + to_string(left) + " (" + who +
                                    "), got k=" + to_string(options.k));
}

template <class T>
void check(const Rows<T>& x, const Options& options) {
    using std::to_string;
    if (x.x.rows < 1 || x.x.dim < 1)
        throw std::invalid_argument("expected x of at least one row and one column, got [" +
                                    to_string(x.x.rows) + ", " + to_string(x.x.dim) + "]");
    if (x.factored() && x.left.rows != x.x.rows)
        throw std::invalid_argument("expected as many rows in both factors, got " + to_string(x.left.rows) +
                                    " and " + to_string(x.x.rows));
    for (std::int64_t i = 0; i < options.uniforms.count; ++i)
        if (!(options.uniforms.given[i] >= 0.0 && options.uniforms.given[i] < 1.0))
            throw std::invalid_argument("expected uniforms in [0, 1), got " +
                                        to_string(options.uniforms.given[i]));
    check_choice(x.count(), options);
    if (options.algorithm == Algorithm::kSorted && (x.factored() || x.x.dim != 1))
        throw std::invalid_argument("expected x of one number a row for algorithm='sorted', got " +
                                    (x.factored() ? "a pair" : to_string(x.x.dim) + " columns"));
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

/// Throws for the first row with NaN or inf, and where all are finite, for a norm that overflows.
/// `fetch(row)` returns the row's numbers.
template <class Fetch>
void check_norms(const std::vector<double>& norms, const Fetch& fetch) {
    bool overflow = false;
    for (std::size_t i = 0; i < norms.size(); ++i) {
        if (std::isfinite(norms[i])) continue;
        for (const auto value : fetch(static_cast<std::int64_t>(i)))
            if (!std::isfinite(value)) throw_not_finite(static_cast<std::int64_t>(i));
        overflow = true;
    }
    if (overflow) throw_overflow();
}

/// The row of largest weighted squared norm among those of positive weight, the first of equals.
inline std::int64_t largest_norm(const std::vector<double>& norms, const double* weights) {
    std::int64_t largest = -1;
    double most = -1.0;
    for (std::size_t i = 0; i < norms.size(); ++i) {
        const double sample = weights == nullptr ? 1.0 : weights[i];
        if (sample * norms[i] > most && sample > 0.0) {
            largest = static_cast<std::int64_t>(i);
            most = sample * norms[i];
        }
    }
    return largest;
}

/// The rows that are not chosen yet, counted in a tree of sums (Fenwick 1994) that finds the n-th and removes
/// it.
class Unchosen {
  public:
    /// `taken` may name a row several times.
    Unchosen(std::int64_t rows, const std::vector<std::int64_t>& taken)
        : counts_(static_cast<std::size_t>(rows) + 1, 1), left_(rows) {
        counts_[0] = 0;
        for (const auto row : taken) {
            left_ -= counts_[static_cast<std::size_t>(row) + 1];
            counts_[static_cast<std::size_t>(row) + 1] = 0;
        }
        for (std::size_t i = 1; i < counts_.size(); ++i)
            if (i + (i & -i) < counts_.size()) counts_[i + (i & -i)] += counts_[i];
        while (2 * top_ < counts_.size()) top_ *= 2;
    }

    /// Removes the floor(u * left)-th of the rows left, and returns it.
    std::int64_t take(double u) {
        std::int64_t before = uniform_index(u, left_);
        std::size_t at = 0;
        for (std::size_t step = top_; step > 0; step /= 2)
            if (at + step < counts_.size() && counts_[at + step] <= before) {
                at += step;
                before -= counts_[at];
            }
        for (std::size_t i = at + 1; i < counts_.size(); i += i & -i) --counts_[i];
        --left_;
        return static_cast<std::int64_t>(at);
    }

  private:
    std::vector<std::int64_t> counts_;
    std::int64_t left_;
    std::size_t top_ = 1;
};

/// Fills `chosen` up to k once no weight is left: uniformly among the rows of positive weight that are not
/// chosen, with the uniforms from number `from` on.
inline void fill(std::vector<std::int64_t>& chosen, std::int64_t rows, const Options& options,
                 std::int64_t from) {
    std::vector<std::int64_t> taken = options.initial;
    taken.insert(taken.end(), chosen.begin(), chosen.end());
    if (options.weights != nullptr)
        for (std::int64_t i = 0; i < rows; ++i)
            if (options.weights[i] == 0.0) taken.push_back(i);
    Unchosen unchosen(rows, taken);
    while (static_cast<std::int64_t>(chosen.size()) < options.k) {
        chosen.push_back(unchosen.take(options.uniforms(from++)));
        if (chosen.size() % (1 << 16) == 0) options.between();
    }
}

}  // namespace saal
