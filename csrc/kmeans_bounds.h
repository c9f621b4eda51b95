// Lower bounds of squared distances between rows and pending centres, from products in float.
//
// With x' and c' the rows as floats, centred and scaled, ‖x − c‖² differs from ‖x'‖² + ‖c'‖² − 2⟨x', c'⟩ by
// no more than (D + 32) 2⁻²⁴ (‖x'‖² + ‖c'‖²): rounding x' and c' costs 4 · 2⁻²⁴, the product D · 2⁻²⁴ in any
// order of its terms (Higham, Accuracy and Stability of Numerical Algorithms, 2002, Section 3.1), the sums
// the rest. For outer products both factors' products count, and nothing can be centred. What underflows is
// below 2⁻⁹⁰ in units of the scale; what overflows gives NaN or an infinite bound, and is computed exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kmeans_filter.h"
#include "kmeans_pass.h"

namespace saal {

template <class T>
class Bounds {
  public:
    /// Some rows, as floats.
    struct Packed {
        std::vector<float> x, left, norms;
    };
    /// The numbers a thread works with.
    struct Scratch {
        Packed rows;
        std::vector<float> dots, left_dots;
        std::vector<std::int32_t> hits;
    };
    /// Centres as `FilterTable::dots` reads them.
    struct Panels {
        std::vector<float> x, left, norms;
        std::int64_t count = 0;
    };

    Bounds(const Rows<T>& x, const FilterTable& table)
        : x_(x),
          table_(table),
          shift_(static_cast<std::size_t>(x.x.dim), T{0}),
          zeros_(static_cast<std::size_t>(x.left.dim), T{0}) {
        // ‖x'‖² itself is a sum of floats, in 16 parts
        const auto terms = static_cast<double>(x.numbers() + x.numbers() / 16 + 32);
        // Beyond this many terms the bound is worth nothing: below 0, so that all is computed.
        keep_ = terms < 0x1p16 ? static_cast<float>(1.0 - 1.02 * terms * 0x1p-24) : -1.0F;
        const std::int64_t step = std::max<std::int64_t>(x.count() / kSample, 1);
        if (!x.factored()) {
            double taken = 0.0;
            std::vector<double> mean(shift_.size(), 0.0);
            for (std::int64_t i = 0; i < x.count(); i += step, taken += 1.0)
                for (std::int64_t j = 0; j < x.x.dim; ++j)
                    mean[static_cast<std::size_t>(j)] += static_cast<double>(x.x.row(i)[j]);
            for (std::size_t j = 0; j < mean.size(); ++j) shift_[j] = static_cast<T>(mean[j] / taken);
        }
        scale_ = scale(x.x, shift_, step);
        left_scale_ = scale(x.left, zeros_, step);
    }

    std::int64_t pad_rows(std::int64_t count) const {
        return (count + table_.strip - 1) / table_.strip * table_.strip;
    }
    std::int64_t pad_centres(std::int64_t count) const {
        return (count + table_.width - 1) / table_.width * table_.width;
    }

    /// Packs `count` rows; `row_of(r)` is the r-th one's number.
    template <class RowOf>
    void pack(std::int64_t count, const RowOf& row_of, Packed& out) const {
        const auto padded = static_cast<std::size_t>(pad_rows(count));
        out.x.resize(padded * static_cast<std::size_t>(x_.x.dim));
        out.left.resize(padded * static_cast<std::size_t>(x_.left.dim));
        out.norms.resize(padded);
        for (std::int64_t r = 0; r < count; ++r) {
            const std::int64_t row = row_of(r);
            double norm = pack_row(x_.x.row(row), shift_, scale_, out.x.data() + r * x_.x.dim);
            if (x_.factored()) {
                const double left =
                    pack_row(x_.left.row(row), zeros_, left_scale_, out.left.data() + r * x_.left.dim);
                // An outlier could lift what underflowed in the other factor.
                norm =
                    norm < 0x1p40 && left < 0x1p40 ? norm * left : std::numeric_limits<double>::quiet_NaN();
            }
            out.norms[static_cast<std::size_t>(r)] = static_cast<float>(norm);
        }
    }

    /// Adds row r of those packed to the panels.
    void add(const Packed& packed, std::int64_t r, Panels& panels) const {
        if (panels.count % table_.width == 0) {
            panels.x.resize(panels.x.size() + static_cast<std::size_t>(table_.width * x_.x.dim), 0.0F);
            panels.left.resize(panels.left.size() + static_cast<std::size_t>(table_.width * x_.left.dim),
                               0.0F);
            panels.norms.resize(panels.norms.size() + static_cast<std::size_t>(table_.width), 0.0F);
        }
        spread(packed.x.data() + r * x_.x.dim, x_.x.dim, panels.x.data(), panels.count);
        spread(packed.left.data() + r * x_.left.dim, x_.left.dim, panels.left.data(), panels.count);
        panels.norms[static_cast<std::size_t>(panels.count++)] = packed.norms[static_cast<std::size_t>(r)];
    }

    static void clear(Panels& panels) {
        panels.x.clear();
        panels.left.clear();
        panels.norms.clear();
        panels.count = 0;
    }

    /// dots[r * stride + c − first] <- the inner product of packed row r in [begin, end) and centre c in
    /// [first, last), for the outer products where rows are such. `first` begins a panel; `begin` a strip.
    void dots(const Packed& packed, std::int64_t begin, std::int64_t end, const Panels& panels,
              std::int64_t first, std::int64_t last, float* dots, std::int64_t stride,
              std::vector<float>& left_dots) const {
        const std::int64_t count = pad_rows(end - begin);
        const std::int64_t dim = x_.x.dim, left = x_.left.dim;
        table_.dots(packed.x.data() + begin * dim, count, dim, panels.x.data() + first * dim, last - first,
                    dots + begin * stride, stride);
        if (!x_.factored()) return;
        left_dots.resize(static_cast<std::size_t>(count * stride));
        table_.dots(packed.left.data() + begin * left, count, left, panels.left.data() + first * left,
                    last - first, left_dots.data(), stride);
        for (std::int64_t r = 0; r < count; ++r)
            table_.multiply(dots + (begin + r) * stride, left_dots.data() + r * stride, last - first);
    }

    /// The centres of `count` whose squared distance to a row may lie below `squared`; how many.
    std::int64_t below(const float* dots, const float* norms, std::int64_t count, float norm, double squared,
                       std::int32_t* hits) const {
        const double scaled = squared * (scale_ * scale_) * (left_scale_ * left_scale_);
        const auto bound = static_cast<float>(scaled * (1.0 + 1e-6)) + std::numeric_limits<float>::min();
        return table_.below(dots, norms, count, norm, keep_, 0x1p-90F, bound, hits);
    }

  private:
    static constexpr std::int64_t kSample = 256;  // rows that the shift and the scale are taken from

    /// The power of two that brings the largest of some rows' norms to about 1.
    double scale(const Matrix<T>& part, const std::vector<T>& shift, std::int64_t step) const {
        double most = 0.0;
        for (std::int64_t i = 0; i < x_.count() && part.dim > 0; i += step) {
            double norm = 0.0;
            for (std::int64_t j = 0; j < part.dim; ++j) {
                const double value = static_cast<double>(part.row(i)[j]) -
                                     static_cast<double>(shift[static_cast<std::size_t>(j)]);
                norm += value * value;
            }
            if (norm > most) most = norm;
        }
        if (!(most > 0.0) || !std::isfinite(most)) return 1.0;
        int exponent = 0;
        std::frexp(most, &exponent);
        return std::ldexp(1.0, -std::clamp(exponent / 2, -120, 120));
    }

    double pack_row(const T* row, const std::vector<T>& shift, double scale, float* out) const {
        const auto dim = static_cast<std::int64_t>(shift.size());
        if constexpr (sizeof(T) == sizeof(float))
            return table_.pack_f32(row, shift.data(), static_cast<float>(scale), dim, out);
        else
            return table_.pack_f64(row, shift.data(), scale, dim, out);
    }

    void spread(const float* row, std::int64_t dim, float* panels, std::int64_t centre) const {
        float* to = panels + centre / table_.width * table_.width * dim + centre % table_.width;
        for (std::int64_t j = 0; j < dim; ++j) to[j * table_.width] = row[j];
    }

    const Rows<T> x_;
    const FilterTable& table_;
    std::vector<T> shift_, zeros_;
    double scale_ = 1.0, left_scale_ = 1.0;
    float keep_ = 0.0F;
};

}  // namespace saal
