// The inner loops of depthwise convolutions with each sample's own weight, channels side by side. Compiled
// once per instruction set (depthwise_kernels.cpp), chosen at run time (depthwise.cpp).
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

/// A depthwise convolution over one image [height, width, channels]. Pairs are down, across; `before` counts
/// the zeros above and to the left.
struct Depthwise {
    std::int64_t channels, height, width, out_height, out_width;
    std::int64_t kernel[2], stride[2], before[2], dilation[2];
};

template <class T>
struct DepthwiseKernels {
    /// out [out_height, out_width, channels] with weight [*kernel, channels].
    void (*apply)(const T* x, const T* weight, const Depthwise& layer, T* out);

    /// Adds the weight's gradient to `sums` [*kernel, channels], g being the gradient at the output.
    void (*gradient)(const T* x, const T* g, const Depthwise& layer, T* sums);
};

struct DepthwiseTable {
    const char* isa;
    DepthwiseKernels<float> f32;
    DepthwiseKernels<double> f64;
};

SAAL_DECLARE_TABLES(DepthwiseTable, depthwise_table);

}  // namespace saal
