// 3×3 convolutions by minimal filtering, with 16 multiplications for 36 (see winograd_kernels.h): with one
// weight for all samples, with every sample's own, and every sample's gradient at the weight.
#pragma once

#include <cstdint>
#include <string>

#include "conv/tiles.h"

namespace saal {

/// Whether these functions know a layer: 3×3, at every pixel, with channels in multiples of 16.
template <class T>
bool winograd_fits(const Convolution<T>& layer, std::int64_t inputs, std::int64_t outputs);

/// Whether they gain where every sample has a weight of its own, for images of `height` × `width` outputs.
bool winograd_gains(std::int64_t height, std::int64_t width);

/// Whether an image's channels are side by side, as these functions read and write them.
template <class T>
bool channels_last(const Images<T>& images) {
    return images.channel_stride == 1;
}

/// out = the layer at x; or, where `back`, x is a gradient at the layer's outputs, out the one at its inputs.
/// `layer.before` are the zeros before x in either case.
template <class T>
void winograd_conv(const Images<const T>& x, const Convolution<T>& layer, bool back, int threads,
                   const std::string& isa, const Images<T>& out);

/// As `tile_norm`; a gradient is kept in the very order of it.
template <class T>
void winograd_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
                   const Rule& rule, int threads, const std::string& isa, T* norms, T* held);

/// As `held_apply`.
template <class T>
void winograd_apply(const T* held, const Images<const T>& x, const Convolution<T>& layer, const Rule& rule,
                    const Step<T>& step, int threads, const std::string& isa, const Images<T>& out);

}  // namespace saal
