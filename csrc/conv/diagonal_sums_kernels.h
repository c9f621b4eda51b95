// The inner loops of diagonal sums. Compiled once per instruction set (diagonal_sums_kernels.cpp), chosen at
// run time (diagonal_sums.cpp).
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

/// A convolution of stride 1 over images of height x width, with `pad_*` zeros before the first row and
/// column.
struct Window {
    std::int64_t height, width;          // of the images
    std::int64_t out_height, out_width;  // of the convolution's output: T = out_height * out_width positions
    std::int64_t kernel_y, kernel_x, pad_y, pad_x, dilation_y, dilation_x;
};

/// Rows [begin, end) of the output [batch * T, T]; see diagonal_sums.h.
template <class T>
using DiagonalSums = void (*)(const T* pixels, T* out, const Window& window, std::int64_t begin,
                              std::int64_t end);

struct DiagonalTable {
    const char* isa;
    DiagonalSums<float> f32;
    DiagonalSums<double> f64;
};

SAAL_DECLARE_TABLES(DiagonalTable, diagonal_table);

}  // namespace saal
