// 3×3 convolutions by minimal filtering, with 16 multiplications for 36 (see winograd_kernels.h): with one
// weight for all samples, with each sample's own weight, and each sample's weight gradient.
#pragma once

#include <cstdint>
#include <string>

#include "conv/tiles.h"

namespace saal {

/// Whether these functions can compute a 3×3 convolution of so many channels, of stride 1 and one group.
bool winograd_channels_fit(std::int64_t inputs, std::int64_t outputs);

/// Whether they can compute a layer: one of those.
template <class T>
bool winograd_fits(const Convolution<T>& layer, std::int64_t inputs, std::int64_t outputs);

/// Whether they are faster than tiles where each sample has its own weight, for `height` × `width` outputs.
bool winograd_gains(std::int64_t height, std::int64_t width);

/// Whether an image's channels are side by side, as these functions read and write them.
template <class T>
bool channels_last(const Images<T>& images) {
    return images.channel_stride == 1;
}

/// out = the layer at x. Where `back`, x is a gradient at the layer's outputs and out the one at its inputs.
/// `layer.before` counts the zeros before x in either case.
template <class T>
void winograd_conv(const Images<const T>& x, const Convolution<T>& layer, bool back, int threads,
                   const std::string& isa, const Images<T>& out);

/// As `tile_norm`, with materialized gradients in the same order.
template <class T>
void winograd_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
                   const Rule& rule, int threads, const std::string& isa, T* norms, T* materialized);

/// As `apply_materialized`.
template <class T>
void winograd_apply(const T* materialized, const Images<const T>& x, const Convolution<T>& layer,
                    const Rule& rule, const T* scales, int threads, const std::string& isa,
                    const Images<T>& out);

}  // namespace saal
