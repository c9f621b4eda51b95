// The Gram matrix of a convolution's patches from that of the pixels: sums along its diagonals.
#pragma once

#include <cstdint>
#include <string>

#include "conv/diagonal_sums_kernels.h"

namespace saal {

/// out[n, t, t'] = Σ_k pixels[n, t + k, t' + k] over the kernel's offsets k, with zeros outside the images.
/// pixels [batch, S, S] with S = height * width, out [batch, T, T]; both contiguous. `isa` is one of
/// `usable_isas()`, empty for the fastest.
template <class T>
void diagonal_sums(const T* pixels, T* out, std::int64_t batch, const Window& window, int threads,
                   const std::string& isa);

}  // namespace saal
