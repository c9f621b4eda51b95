// Checks of a layer's arguments. After them no product that the drivers form overflows, and no index leaves
// an array: they divide by groups and channels, and reserve memory by what the geometry says.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "conv/tiles.h"
#include "support/limits.h"

namespace saal {

inline void check(bool fits, const char* expected) {
    if (!fits) throw std::invalid_argument(std::string("expected ") + expected);
}

/// Checks a layer of `inputs` and `outputs` channels by itself.
template <class T>
void check_layer(const Convolution<T>& layer, std::int64_t inputs, std::int64_t outputs) {
    check(inputs > 0 && outputs > 0, "at least one input and one output channel");
    check(layer.groups > 0 && inputs % layer.groups == 0 && outputs % layer.groups == 0,
          "channels that groups divide");
    for (int side = 0; side < 2; ++side)
        check(layer.kernel[side] > 0 && layer.stride[side] > 0 && layer.dilation[side] > 0 &&
                  layer.before[side] >= 0,
              "kernel, stride and dilation > 0, padding >= 0");
}

/// Checks that the images, and those padded as outputs of `height` x `width` positions need, fit memory.
template <class T>
void check_images(const Images<const T>& images, const Convolution<T>& layer, std::int64_t height,
                  std::int64_t width) {
    const auto length = [&](std::int64_t size, std::int64_t outputs, int side) {
        const double padded = static_cast<double>(size) + static_cast<double>(layer.before[side]);
        const double reach =
            static_cast<double>(outputs) * static_cast<double>(layer.stride[side]) +
            static_cast<double>(layer.kernel[side]) * static_cast<double>(layer.dilation[side]);
        return std::max(padded, reach);
    };
    const double rows = length(images.height, height, 0), columns = length(images.width, width, 1);
    check(rows * columns * static_cast<double>(images.channels) < kMostNumbers &&
              static_cast<double>(height) * static_cast<double>(width) < kMostNumbers,
          "a stride, a padding and a dilation for which the padded images fit memory");
}

/// Checks what a layer reads to give images `out`.
template <class T>
void check_reading(const Images<const T>& x, const Convolution<T>& layer, const Images<T>& out) {
    check_layer(layer, x.channels, out.channels);
    check_images(x, layer, out.height, out.width);
    check(out.channel_stride == 1 || out.width_stride == 1, "out with channels or columns side by side");
    check(out.count == x.count, "out of as many samples as x");
}

/// Checks a layer's inputs and output gradients.
template <class T>
void check_factors(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer) {
    check_layer(layer, a.channels, g.channels);
    check_images(a, layer, g.height, g.width);
    check(a.count == g.count, "as many inputs as output gradients");
}

}  // namespace saal
