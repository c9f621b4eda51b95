// How rows are centred and scaled to floats, whose products give lower bounds of distances. The CPU
// (bounds.h) and CUDA (cuda/kmeans_rejection.cuh) share it.
//
// With x' and c' the rows as floats, centred and scaled, ‖x − c‖² differs from ‖x'‖² + ‖c'‖² − 2⟨x', c'⟩ by
// no more than (D + 32) 2⁻²⁴ (‖x'‖² + ‖c'‖²): rounding x' and c' costs 4 · 2⁻²⁴, the product D · 2⁻²⁴ in any
// order of its terms (Higham, Accuracy and Stability of Numerical Algorithms, 2002, Section 3.1), the sums
// the rest. Outer products cannot be centred, and the errors of both factors' products add up. Terms that
// underflow are below 2⁻⁹⁰ in units of the scale. A row that could overflow has NaN for its norm, and its
// distances are computed exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"

namespace saal {

/// The most that a bound loses to underflow, in normalized units.
constexpr float kUnderflow = 0x1p-90F;

/// A row's squared norm for bounds: NaN, which gives no bound, where a product with it could overflow.
SAAL_HOST_DEVICE static inline float bounded(double norm) {
    return norm < 0x1p120 ? static_cast<float>(norm) : std::numeric_limits<float>::quiet_NaN();
}

/// A squared distance in normalized units, rounded up; `unit`: the square of the scales. A pair needs no
/// exact distance if its lower bound (norm + other) keep − 2 dot − kUnderflow reaches it.
SAAL_HOST_DEVICE static inline float float_bound(double squared, double unit) {
    return static_cast<float>(squared * unit * (1.0 + 1e-6)) + 0x1p-126F;
}

/// x' = scale (x − shift), a' = left_scale a.
template <class T>
struct Normalization {
    std::vector<T> shift;
    double scale = 1.0, left_scale = 1.0;
    float keep = -1.0F;

    double unit() const { return (scale * scale) * (left_scale * left_scale); }
    float bound(double squared) const { return float_bound(squared, unit()); }
};

/// The power of two that scales the largest norm, of every `step`-th row, to about 1.
template <class T>
double fit_scale(const Matrix<T>& part, const std::vector<T>& shift, std::int64_t step) {
    double most = 0.0;
    for (std::int64_t i = 0; i < part.rows && part.dim > 0; i += step) {
        double norm = 0.0;
        for (std::int64_t j = 0; j < part.dim; ++j) {
            const double value =
                static_cast<double>(part.row(i)[j]) - static_cast<double>(shift[static_cast<std::size_t>(j)]);
            norm += value * value;
        }
        if (norm > most) most = norm;
    }
    if (!(most > 0.0) || !std::isfinite(most)) return 1.0;
    int exponent = 0;
    std::frexp(most, &exponent);
    return std::ldexp(1.0, -std::clamp(exponent / 2, -120, 120));
}

/// Every so many rows, some 256 in all, are enough to fit a normalization.
inline std::int64_t sample_step(std::int64_t rows) {
    return std::max<std::int64_t>(rows / 256, 1);
}

template <class T>
Normalization<T> fit_normalization(const Rows<T>& x) {
    Normalization<T> fitted;
    // ‖x'‖² is itself a sum of floats, in 16 parts
    const auto terms = static_cast<double>(x.width() + x.width() / 16 + 32);
    // With more terms than these, bounds stay below 0, so that every distance is computed.
    if (terms < 0x1p16) fitted.keep = static_cast<float>(1.0 - 1.02 * terms * 0x1p-24);
    const std::int64_t step = sample_step(x.count());
    fitted.shift.assign(static_cast<std::size_t>(x.x.dim), T{0});
    if (!x.factored()) {
        double taken = 0.0;
        std::vector<double> mean(fitted.shift.size(), 0.0);
        for (std::int64_t i = 0; i < x.count(); i += step, taken += 1.0)
            for (std::int64_t j = 0; j < x.x.dim; ++j)
                mean[static_cast<std::size_t>(j)] += static_cast<double>(x.x.row(i)[j]);
        for (std::size_t j = 0; j < mean.size(); ++j) fitted.shift[j] = static_cast<T>(mean[j] / taken);
    }
    fitted.scale = fit_scale(x.x, fitted.shift, step);
    fitted.left_scale = fit_scale(x.left, std::vector<T>(static_cast<std::size_t>(x.left.dim), T{0}), step);
    return fitted;
}

}  // namespace saal
