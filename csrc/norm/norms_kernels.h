// The inner loops of normalisation layers with a scale and a shift of each sample's own. Compiled once per
// instruction set (norms_kernels.cpp), chosen at run time (norms.cpp).
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

template <class T>
struct NormKernels {
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
