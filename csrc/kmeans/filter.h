// The quick part of k-means++: products in float, from which lower bounds of squared distances follow. A
// bound only ever spares an exact distance that could not have mattered, so no result depends on how it is
// rounded; here multiply-adds may fuse. Compiled once per instruction set (kmeans_filter.cpp).
#pragma once

#include <cstdint>

namespace saal {

/// Rows are packed next to each other, [count, dim]; centres in panels [count / width, dim, width].
struct FilterTable {
    const char* isa;
    std::int64_t strip;  // `dots` takes rows in multiples of this
    std::int64_t width;  // of a panel
    /// out[j] <- scale (row[j] − shift[j]); returns Σ out².
    double (*pack_f32)(const float* row, const float* shift, float scale, std::int64_t dim, float* out);
    double (*pack_f64)(const double* row, const double* shift, double scale, std::int64_t dim, float* out);
    /// dots[r * stride + p] <- ⟨row r, centre p⟩ for centres [0, centre_count); what lies beyond in their
    /// last panel may be left as it is.
    void (*dots)(const float* rows, std::int64_t count, std::int64_t dim, const float* centres,
                 std::int64_t centre_count, float* dots, std::int64_t stride);
    /// dots[i] *= others[i]
    void (*multiply)(float* dots, const float* others, std::int64_t count);
    /// Writes to `hits` the centres whose bound (norm + norms[p]) keep − 2 dots[p] − absolute lies below
    /// `bound`, or isn't a number; returns how many.
    std::int64_t (*below)(const float* dots, const float* norms, std::int64_t count, float norm, float keep,
                          float absolute, float bound, std::int32_t* hits);
};

extern const FilterTable filter_table_baseline;
extern const FilterTable filter_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const FilterTable filter_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
