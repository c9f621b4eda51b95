// The inner loops of normalisation layers with a scale and a shift of each sample's own. Compiled once per
// instruction set (norms_kernels.cpp), chosen at run time (norms.cpp).
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

template <class T>
struct NormKernels {
    /// `count` numbers of one channel side by side: gx = scale g, and sums = Σ g x, Σ g.
    void (*plane_back)(const T* x, const T* g, T scale, std::int64_t count, T* gx, T* sums);

    /// `rows` rows of `width` numbers, each column with a scale and sums of its own: gx = scale g, and adds
    /// Σ g x and Σ g over the rows to sums [2, width].
    void (*rows_back)(const T* x, const T* g, const T* scale, std::int64_t rows, std::int64_t width, T* gx,
                      T* sums);

    /// Rows of `width` numbers: y = (x - mean) rstd weight + bias, with each row's mean and 1 / √(var + eps).
    void (*layer_norm)(const T* x, const T* weight, const T* bias, T eps, std::int64_t rows,
                       std::int64_t width, T* y, T* mean, T* rstd);

    /// The way back: gx, and adds the gradients by weight and bias to sums [2, width].
    void (*layer_norm_back)(const T* x, const T* g, const T* weight, const T* mean, const T* rstd,
                            std::int64_t rows, std::int64_t width, T* gx, T* sums);
};

struct NormTable {
    const char* isa;
    NormKernels<float> f32;
    NormKernels<double> f64;
};

SAAL_DECLARE_TABLES(NormTable, norm_table);

}  // namespace saal
