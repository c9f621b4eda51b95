// The quick part of k-means++: products in float, which give lower bounds of squared distances. A bound only
// spares exact distances that could not have changed the result, so no result depends on its rounding, and
// multiply-adds may fuse here. Compiled once per instruction set (filter.cpp), chosen at run time.
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

/// Rows are packed as [count, dim], centres in panels [count / width, dim, width].
struct FilterTable {
    const char* isa;
    std::int64_t strip;  // `dots` takes rows in multiples of this
    std::int64_t width;  // of a panel
    /// out[j] <- scale (row[j] − shift[j]); returns Σ out².
    double (*pack_f32)(const float* row, const float* shift, float scale, std::int64_t dim, float* out);
    double (*pack_f64)(const double* row, const double* shift, double scale, std::int64_t dim, float* out);
    /// dots[r * stride + p] <- ⟨row r, centre p⟩ for centres [0, centre_count). It may skip the rest of the
    /// last panel.
    void (*dots)(const float* rows, std::int64_t count, std::int64_t dim, const float* centres,
                 std::int64_t centre_count, float* dots, std::int64_t stride);
    /// dots[i] *= others[i]
    void (*multiply)(float* dots, const float* others, std::int64_t count);
    /// Writes the centres to `hits` whose bound (norm + norms[p]) keep − 2 dots[p] − absolute is below
    /// `bound` or NaN. Returns how many they are.
    std::int64_t (*below)(const float* dots, const float* norms, std::int64_t count, float norm, float keep,
                          float absolute, float bound, std::int32_t* hits);
};

SAAL_DECLARE_TABLES(FilterTable, filter_table);

}  // namespace saal
