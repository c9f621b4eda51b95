// Packs a layer's tensors for tiles_kernels.h: strips of inputs, panels of outputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "conv/tiles.h"

namespace saal {

/// How a group's outputs split into panels. The last may be half a panel, or have columns of zeros.
struct Panels {
    std::int64_t outputs, width;

    std::int64_t count() const { return (outputs + width - 1) / width; }
    std::int64_t used(std::int64_t panel) const { return std::min(width, outputs - panel * width); }
    bool half(std::int64_t panel) const { return used(panel) <= width / 2; }
    std::int64_t width_of(std::int64_t panel) const { return half(panel) ? width / 2 : width; }
};

/// The images as one long row each, where rows follow each other without a gap; else as they are.
template <class T>
Images<T> flattened(Images<T> images) {
    if (images.height_stride == images.width * images.width_stride) {
        images.width *= images.height;
        images.height = 1;
    }
    return images;
}

/// to[j][i] = from[i * row_stride + j] for i, j < 4. Every x86-64 and ARM has these registers.
inline void transpose4(const float* from, std::int64_t row_stride, float* const* to) {
    typedef float V __attribute__((vector_size(16)));
    typedef std::int32_t At __attribute__((vector_size(16)));
    V rows[4];
    for (int i = 0; i < 4; ++i) std::memcpy(&rows[i], from + i * row_stride, sizeof(V));
#if defined(__clang__)
#define SAAL_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SAAL_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, At{__VA_ARGS__})
#endif
    const V low02 = SAAL_SHUFFLE(rows[0], rows[2], 0, 4, 1, 5);
    const V low13 = SAAL_SHUFFLE(rows[1], rows[3], 0, 4, 1, 5);
    const V high02 = SAAL_SHUFFLE(rows[0], rows[2], 2, 6, 3, 7);
    const V high13 = SAAL_SHUFFLE(rows[1], rows[3], 2, 6, 3, 7);
    const V columns[4] = {SAAL_SHUFFLE(low02, low13, 0, 4, 1, 5), SAAL_SHUFFLE(low02, low13, 2, 6, 3, 7),
                          SAAL_SHUFFLE(high02, high13, 0, 4, 1, 5), SAAL_SHUFFLE(high02, high13, 2, 6, 3, 7)};
#undef SAAL_SHUFFLE
    for (int j = 0; j < 4; ++j) std::memcpy(to[j], &columns[j], sizeof(V));
}

/// to[j * to_stride + i] = from[i * row_stride + j * column_stride] for i < rows, j < columns.
template <class T>
void transpose(const T* from, std::int64_t row_stride, std::int64_t column_stride, std::int64_t rows,
               std::int64_t columns, T* to, std::int64_t to_stride) {
    if (row_stride == 1) {
        for (std::int64_t j = 0; j < columns; ++j)
            std::copy(from + j * column_stride, from + j * column_stride + rows, to + j * to_stride);
        return;
    }
    constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
    for (std::int64_t i = 0; i < rows; i += kLine)
        for (std::int64_t j = 0; j < columns; j += kLine) {  // cache lines of both sides, each touched once
            const std::int64_t below = std::min(rows, i + kLine);
            const std::int64_t right = std::min(columns, j + kLine);
            std::int64_t r = i;
            if constexpr (sizeof(T) == 4)
                if (column_stride == 1)
                    for (; r + 4 <= below; r += 4) {
                        std::int64_t c = j;
                        for (; c + 4 <= right; c += 4) {
                            T* const at[4] = {to + c * to_stride + r, to + (c + 1) * to_stride + r,
                                              to + (c + 2) * to_stride + r, to + (c + 3) * to_stride + r};
                            transpose4(from + r * row_stride + c, row_stride, at);
                        }
                        for (; c < right; ++c)
                            for (std::int64_t k = r; k < r + 4; ++k)
                                to[c * to_stride + k] = from[k * row_stride + c];
                    }
            for (; r < below; ++r)
                for (std::int64_t c = j; c < right; ++c)
                    to[c * to_stride + r] = from[r * row_stride + c * column_stride];
        }
}

/// Reads a layer's patches from one of its inputs as strips: A[d, t] with d = (down, across, channel).
template <class T>
class Patches {
  public:
    /// For outputs of `height` x `width` positions.
    Patches(const Images<const T>& images, const Convolution<T>& layer, std::int64_t height,
            std::int64_t width)
        : images_(subsampled(subsampled(images, layer, 0, height), layer, 1, width)),
          top_(layer.before[0]),
          left_(layer.before[1]),
          rows_(std::max(images_.height + top_, reach(layer, 0, height))),
          columns_(std::max(images_.width + left_, reach(layer, 1, width))),
          in_place_(images_.channel_stride == 1 && rows_ == images_.height && columns_ == images_.width) {
        const std::int64_t down = in_place_ ? images_.height_stride : columns_ * images.channels;
        const std::int64_t across = in_place_ ? images_.width_stride : images.channels;
        for (std::int64_t h = 0; h < height; ++h)
            for (std::int64_t w = 0; w < width; ++w)
                positions_.push_back(h * step(layer, 0) * down + w * step(layer, 1) * across);
        const std::int64_t channels = images_.channels / layer.groups;
        for (std::int64_t h = 0; h < layer.kernel[0]; ++h)
            for (std::int64_t w = 0; w < layer.kernel[1]; ++w)
                for (std::int64_t c = 0; c < channels; ++c)
                    inputs_.push_back(h * layer.dilation[0] * down + w * layer.dilation[1] * across + c);
        group_ = channels;
    }

    std::int64_t positions() const { return static_cast<std::int64_t>(positions_.size()); }

    /// How many numbers of scratch memory a sample needs.
    std::int64_t scratch() const { return in_place_ ? 0 : rows_ * columns_ * images_.channels; }

    /// The pixels of sample n that `strip` reads, once `prepare` has filled the same scratch.
    const T* pixels(std::int64_t n, const T* scratch) const {
        return in_place_ ? images_.data + n * images_.count_stride : scratch;
    }

    /// Copies sample n's pixels to the scratch, channels side by side, padded with zeros.
    void prepare(std::int64_t n, T* scratch) const {
        if (in_place_) return;
        const T* image = images_.data + n * images_.count_stride;
        const std::int64_t channels = images_.channels;
        std::fill(scratch, scratch + this->scratch(), T{0});
        constexpr std::int64_t kChannels = 64 / static_cast<std::int64_t>(sizeof(T));  // read side by side
        for (std::int64_t c = 0; c < channels; c += kChannels)
            for (std::int64_t h = 0; h < images_.height; ++h)
                transpose(image + c * images_.channel_stride + h * images_.height_stride,
                          images_.channel_stride, images_.width_stride, std::min(kChannels, channels - c),
                          images_.width, scratch + ((h + top_) * columns_ + left_) * channels + c, channels);
    }

    /// Writes strip number `strip` of a group: [positions, kStrip].
    void strip(const T* pixels, std::int64_t group, std::int64_t strip, T* to) const {
        const auto inputs = static_cast<std::int64_t>(inputs_.size());
        const std::int64_t first = strip * kStrip;
        const std::int64_t* at = inputs_.data() + first;
        pixels += group * group_;
        if (first + kStrip <= inputs && at[kStrip - 1] - at[0] == kStrip - 1) {
            for (const std::int64_t position : positions_) {
                std::memcpy(to, pixels + position + at[0], kStrip * sizeof(T));
                to += kStrip;
            }
            return;
        }
        const std::int64_t used = std::min(kStrip, inputs - first);
        for (const std::int64_t position : positions_) {
            for (std::int64_t d = 0; d < used; ++d) to[d] = pixels[position + at[d]];
            for (std::int64_t d = used; d < kStrip; ++d) to[d] = T{0};
            to += kStrip;
        }
    }

  private:
    /// Whether no position reads the pixels between strides: they are left out from the start.
    static bool skips(const Convolution<T>& layer, int side) {
        return layer.kernel[side] == 1 && layer.before[side] == 0;
    }

    static std::int64_t step(const Convolution<T>& layer, int side) {
        return skips(layer, side) ? 1 : layer.stride[side];
    }

    static Images<const T> subsampled(Images<const T> images, const Convolution<T>& layer, int side,
                                      std::int64_t size) {
        if (skips(layer, side)) {
            std::int64_t& extent = side == 0 ? images.height : images.width;
            extent = std::min(size, (extent + layer.stride[side] - 1) / layer.stride[side]);
            if (extent > 1) (side == 0 ? images.height_stride : images.width_stride) *= layer.stride[side];
        }
        return images;
    }

    static std::int64_t reach(const Convolution<T>& layer, int side, std::int64_t size) {
        return (size - 1) * step(layer, side) + (layer.kernel[side] - 1) * layer.dilation[side] + 1;
    }

    Images<const T> images_;
    std::int64_t top_, left_, rows_, columns_, group_ = 0;
    bool in_place_;
    std::vector<std::int64_t> positions_, inputs_;
};

/// Packs one panel of a sample's output gradient: [positions, width]. `g` are flattened images, `at` points
/// at the panel's first channel.
template <class T>
void pack_outputs(const Images<const T>& g, const T* at, std::int64_t used, std::int64_t width, T* to) {
    for (std::int64_t h = 0; h < g.height; ++h)
        transpose(at + h * g.height_stride, g.channel_stride, g.width_stride, used, g.width,
                  to + h * g.width * width, width);
    if (used < width)
        for (std::int64_t t = 0; t < g.height * g.width; ++t)
            std::fill(to + t * width + used, to + (t + 1) * width, T{0});
}

/// Unpacks one panel of outputs into images whose channels or columns are side by side.
template <class T>
void unpack_outputs(const T* from, const Images<T>& out, T* at, std::int64_t used, std::int64_t width) {
    for (std::int64_t h = 0; h < out.height; ++h, from += out.width * width) {
        T* row = at + h * out.height_stride;
        if (out.channel_stride == 1)
            transpose(from, std::int64_t{1}, width, used, out.width, row, out.width_stride);
        else
            transpose(from, width, std::int64_t{1}, out.width, used, row, out.channel_stride);
    }
}

/// Packs one panel of the weight: [rows, width] with rows = (down, across, channel) as in `Patches`, and
/// zeros beyond. `weight` points at the panel's first output, [outputs, channels, taps].
template <class T>
void pack_weight(const T* weight, std::int64_t channels, std::int64_t taps, std::int64_t used,
                 std::int64_t width, std::int64_t rows, T* to) {
    const std::int64_t inputs = channels * taps;
    std::int64_t channel = 0, tap = 0;
    const auto next_row = [&] {
        T* const row = to + (tap * channels + channel) * width;
        if (++tap == taps) {
            tap = 0;
            ++channel;
        }
        return row;
    };
    std::int64_t d = 0;
    if constexpr (sizeof(T) == 4) {
        const std::int64_t whole = used / 4 * 4;
        for (; d + 4 <= inputs; d += 4) {
            T* rows[4];
            for (T*& row : rows) row = next_row();
            for (std::int64_t o = 0; o < whole; o += 4) {
                T* const at[4] = {rows[0] + o, rows[1] + o, rows[2] + o, rows[3] + o};
                transpose4(weight + o * inputs + d, inputs, at);
            }
            for (std::int64_t o = whole; o < used; ++o)
                for (int j = 0; j < 4; ++j) rows[j][o] = weight[o * inputs + d + j];
        }
    }
    for (; d < inputs; ++d) {
        T* const row = next_row();
        for (std::int64_t o = 0; o < used; ++o) row[o] = weight[o * inputs + d];
    }
    if (used < width)
        for (d = 0; d < inputs; ++d) std::fill(to + d * width + used, to + (d + 1) * width, T{0});
    std::fill(to + inputs * width, to + rows * width, T{0});
}

}  // namespace saal
