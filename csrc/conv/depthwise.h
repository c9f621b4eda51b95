// Depthwise convolutions with each sample's own weight, and each sample's weight gradient. Images have their
// channels side by side: [count, height, width, channels], contiguous, as have weights: [count, *kernel,
// channels]. `isa` is one of `usable_isas()`, empty for the fastest; the numbers do not depend on `threads`.
#pragma once

#include <cstdint>
#include <string>

#include "conv/depthwise_kernels.h"

namespace saal {

/// Whether there are kernels of this width.
bool depthwise_fits(std::int64_t kernel_width);

/// out[n] = the convolution of x[n] with weight[n].
template <class T>
void depthwise_apply(const T* x, const T* weight, std::int64_t count, const Depthwise& layer, int threads,
                     const std::string& isa, T* out);

/// gradient[n], of the input x[n] and the gradient g[n] at the output.
template <class T>
void depthwise_gradient(const T* x, const T* g, std::int64_t count, const Depthwise& layer, int threads,
                        const std::string& isa, T* gradient);

}  // namespace saal
