// The frame that rows are brought to before products in float give lower bounds of their distances; what the
// CPU (kmeans_bounds.h) and CUDA (cuda/kmeans_rejection.cuh) share of it.
//
// With x' and c' the rows as floats, centred and scaled, ‖x − c‖² differs from ‖x'‖² + ‖c'‖² − 2⟨x', c'⟩ by
// no more than (D + 32) 2⁻²⁴ (‖x'‖² + ‖c'‖²): rounding x' and c' costs 4 · 2⁻²⁴, the product D · 2⁻²⁴ in any
// order of its terms (Higham, Accuracy and Stability of Numerical Algorithms, 2002, Section 3.1), the sums
// the rest. For outer products both factors' products count, and nothing can be centred. What underflows is
// below 2⁻⁹⁰ in units of the scale; a row that could overflow has NaN for its norm, and is computed exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kmeans/pass.h"
#include "kmeans/policy.h"

namespace saal {

/// What a bound loses to underflow, in units of the frame.
constexpr float kUnderflow = 0x1p-90F;

/// A row's squared norm as bounds take it: NaN, of which no bound comes, where a product with it could
/// overflow.
SAAL_HOST_DEVICE static inline float bounded(double norm) {
    return norm < 0x1p120 ? static_cast<float>(norm) : std::numeric_limits<float>::quiet_NaN();
}

/// A squared distance, in units of the frame (`unit`: the square of its scales), rounded up. A pair whose
/// lower bound (norm + other) keep − 2 dot − kUnderflow reaches it needs no exact distance.
SAAL_HOST_DEVICE static inline float float_bound(double squared, double unit) {
    return static_cast<float>(squared * unit * (1.0 + 1e-6)) + 0x1p-126F;
}

/// x' = scale (x − shift), a' = left_scale a.
template <class T>
struct Frame {
    std::vector<T> shift;
    double scale = 1.0, left_scale = 1.0;
    float keep = -1.0F;

    double unit() const { return (scale * scale) * (left_scale * left_scale); }
    float bound(double squared) const { return float_bound(squared, unit()); }
};

/// The power of two that brings the largest of some rows' norms to about 1.
template <class T>
double frame_scale(const Matrix<T>& part, const std::vector<T>& shift, std::int64_t step) {
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

/// Every so many rows, some 256 in all, are enough to take the frame from.
inline std::int64_t frame_step(std::int64_t rows) {
    return std::max<std::int64_t>(rows / 256, 1);
}

template <class T>
Frame<T> frame_of(const Rows<T>& x) {
    Frame<T> frame;
    // ‖x'‖² itself is a sum of floats, in 16 parts
    const auto terms = static_cast<double>(x.numbers() + x.numbers() / 16 + 32);
    // Beyond this many terms the bound is worth nothing: below 0, so that all is computed.
    if (terms < 0x1p16) frame.keep = static_cast<float>(1.0 - 1.02 * terms * 0x1p-24);
    const std::int64_t step = frame_step(x.count());
    frame.shift.assign(static_cast<std::size_t>(x.x.dim), T{0});
    if (!x.factored()) {
        double taken = 0.0;
        std::vector<double> mean(frame.shift.size(), 0.0);
        for (std::int64_t i = 0; i < x.count(); i += step, taken += 1.0)
            for (std::int64_t j = 0; j < x.x.dim; ++j)
                mean[static_cast<std::size_t>(j)] += static_cast<double>(x.x.row(i)[j]);
        for (std::size_t j = 0; j < mean.size(); ++j) frame.shift[j] = static_cast<T>(mean[j] / taken);
    }
    frame.scale = frame_scale(x.x, frame.shift, step);
    frame.left_scale = frame_scale(x.left, std::vector<T>(static_cast<std::size_t>(x.left.dim), T{0}), step);
    return frame;
}

}  // namespace saal
