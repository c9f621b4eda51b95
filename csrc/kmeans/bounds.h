// Lower bounds of squared distances between rows and pending centres, from products in float; normalization.h
// derives them.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kmeans/filter.h"
#include "kmeans/normalization.h"
#include "kmeans/pass.h"

namespace saal {

template <class T>
class Bounds {
  public:
    /// Some rows, normalized.
    struct Packed {
        std::vector<float> x, left, norms;
    };
    /// A thread's scratch.
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
          normalization_(fit_normalization(x)),
          zeros_(static_cast<std::size_t>(x.left.dim), T{0}) {}

    std::int64_t pad_rows(std::int64_t count) const {
        return (count + table_.strip - 1) / table_.strip * table_.strip;
    }
    std::int64_t pad_centres(std::int64_t count) const {
        return (count + table_.width - 1) / table_.width * table_.width;
    }

    /// Packs the rows row_of(0), ..., row_of(count - 1).
    template <class RowOf>
    void pack(std::int64_t count, const RowOf& row_of, Packed& out) const {
        const auto padded = static_cast<std::size_t>(pad_rows(count));
        out.x.resize(padded * static_cast<std::size_t>(x_.x.dim));
        out.left.resize(padded * static_cast<std::size_t>(x_.left.dim));
        out.norms.resize(padded);
        for (std::int64_t r = 0; r < count; ++r) {
            const std::int64_t row = row_of(r);
            double norm = pack_row(x_.x.row(row), normalization_.shift, normalization_.scale,
                                   out.x.data() + r * x_.x.dim);
            if (x_.factored()) {
                const double left = pack_row(x_.left.row(row), zeros_, normalization_.left_scale,
                                             out.left.data() + r * x_.left.dim);
                // The norm of an outlier could lift terms that underflowed in the other factor.
                norm =
                    norm < 0x1p40 && left < 0x1p40 ? norm * left : std::numeric_limits<double>::quiet_NaN();
            }
            out.norms[static_cast<std::size_t>(r)] = bounded(norm);
        }
    }

    /// Adds packed row r to the panels, as a centre.
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
    /// [first, last); of outer products, the product of both factors'. `first` begins a panel, `begin` a
    /// strip.
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

    /// Writes those of `count` centres to `hits` whose squared distance to a row may lie below `squared`;
    /// returns how many.
    std::int64_t below(const float* dots, const float* norms, std::int64_t count, float norm, double squared,
                       std::int32_t* hits) const {
        return table_.below(dots, norms, count, norm, normalization_.keep, kUnderflow,
                            normalization_.bound(squared), hits);
    }

    /// A lower bound of a squared distance; 0 where there is none.
    double lower_bound(float dot, float other, float norm) const {
        const float bound = (norm + other) * normalization_.keep - 2.0F * dot - kUnderflow;
        return bound > 0.0F ? static_cast<double>(bound) / normalization_.unit() * (1.0 - 1e-6) : 0.0;
    }

    /// Moves packed row `from` to `to`. Only for rows that are no outer products.
    void move(Packed& packed, std::int64_t from, std::int64_t to) const {
        const float* row = packed.x.data() + from * x_.x.dim;
        std::copy(row, row + x_.x.dim, packed.x.data() + to * x_.x.dim);
        packed.norms[static_cast<std::size_t>(to)] = packed.norms[static_cast<std::size_t>(from)];
    }

  private:
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
    const Normalization<T> normalization_;
    const std::vector<T> zeros_;
};

}  // namespace saal
