// Rearranges a layer's tensors for tiles_kernels.h: strips of inputs, panels of outputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "tiles.h"

namespace saal {

/// Memory aligned to cache lines, not initialised.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::int64_t size)
        : data_(static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), kAlign))) {}
    Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() {
        if (data_ != nullptr) ::operator delete(data_, kAlign);
    }
    T* get() const { return data_; }

  private:
    static constexpr std::align_val_t kAlign{64};
    T* data_ = nullptr;
};

/// How a group's outputs split into panels; the last may be half a panel, or have columns of zeros.
struct Panels {
    std::int64_t outputs, width;

    std::int64_t count() const { return (outputs + width - 1) / width; }
    std::int64_t used(std::int64_t panel) const { return std::min(width, outputs - panel * width); }
    bool half(std::int64_t panel) const { return used(panel) <= width / 2; }
    std::int64_t width_of(std::int64_t panel) const { return half(panel) ? width / 2 : width; }
};

/// Where the elements of an image's channel lie: one offset a position.
template <class T>
std::vector<std::int64_t> offsets_of(const Images<T>& images) {
    std::vector<std::int64_t> offsets;
    offsets.reserve(static_cast<std::size_t>(images.height * images.width));
    for (std::int64_t h = 0; h < images.height; ++h)
        for (std::int64_t w = 0; w < images.width; ++w)
            offsets.push_back(h * images.height_stride + w * images.width_stride);
    return offsets;
}

/// Reads a layer's patches from one of its inputs as strips: A[d, t] with d = (down, across, channel).
template <class T>
class Patches {
  public:
    /// For outputs of `height` x `width` positions.
    Patches(const Images<const T>& images, const Convolution<T>& layer, std::int64_t height, std::int64_t width)
        : images_(images),
          top_(layer.before[0]),
          left_(layer.before[1]),
          rows_(std::max(images.height + top_, reach(layer, 0, height))),
          columns_(std::max(images.width + left_, reach(layer, 1, width))),
          in_place_(images.channel_stride == 1 && rows_ == images.height && columns_ == images.width) {
        const std::int64_t down = in_place_ ? images.height_stride : columns_ * images.channels;
        const std::int64_t across = in_place_ ? images.width_stride : images.channels;
        for (std::int64_t h = 0; h < height; ++h)
            for (std::int64_t w = 0; w < width; ++w)
                positions_.push_back(h * layer.stride[0] * down + w * layer.stride[1] * across);
        const std::int64_t channels = images.channels / layer.groups;
        for (std::int64_t h = 0; h < layer.kernel[0]; ++h)
            for (std::int64_t w = 0; w < layer.kernel[1]; ++w)
                for (std::int64_t c = 0; c < channels; ++c)
                    inputs_.push_back(h * layer.dilation[0] * down + w * layer.dilation[1] * across + c);
        group_ = channels;
    }

    std::int64_t positions() const { return static_cast<std::int64_t>(positions_.size()); }

    /// Numbers of scratch memory that a sample needs.
    std::int64_t scratch() const { return in_place_ ? 0 : rows_ * columns_ * images_.channels; }

    /// Where sample n's pixels are read from, once `prepare` has been there with the same scratch.
    const T* pixels(std::int64_t n, const T* scratch) const {
        return in_place_ ? images_.data + n * images_.count_stride : scratch;
    }

    /// Brings sample n's pixels into the form that `strip` reads: channels side by side, padded with zeros.
    void prepare(std::int64_t n, T* scratch) const {
        if (in_place_) return;
        const T* image = images_.data + n * images_.count_stride;
        constexpr std::int64_t kBlock = 64 / static_cast<std::int64_t>(sizeof(T));
        const std::int64_t channels = images_.channels;
        std::fill(scratch, scratch + this->scratch(), T{0});
        for (std::int64_t h = 0; h < images_.height; ++h)
            for (std::int64_t first = 0; first < channels; first += kBlock) {
                const std::int64_t last = std::min(channels, first + kBlock);
                const T* from = image + h * images_.height_stride;
                T* to = scratch + ((h + top_) * columns_ + left_) * channels;
                for (std::int64_t w = 0; w < images_.width; ++w, from += images_.width_stride, to += channels)
                    for (std::int64_t c = first; c < last; ++c) to[c] = from[c * images_.channel_stride];
            }
    }

    /// Strip `strip` of a group: [positions, kStrip].
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
    static std::int64_t reach(const Convolution<T>& layer, int side, std::int64_t size) {
        return (size - 1) * layer.stride[side] + (layer.kernel[side] - 1) * layer.dilation[side] + 1;
    }

    Images<const T> images_;
    std::int64_t top_, left_, rows_, columns_, group_ = 0;
    bool in_place_;
    std::vector<std::int64_t> positions_, inputs_;
};

/// One panel of a sample's output gradient: [positions, width]. `g` points at the panel's first channel.
template <class T>
void pack_outputs(const T* g, std::int64_t channel_stride, const std::vector<std::int64_t>& offsets,
                  std::int64_t used, std::int64_t width, T* to) {
    constexpr std::int64_t kBlock = 64;  // positions: the block's columns stay in L1
    const auto positions = static_cast<std::int64_t>(offsets.size());
    for (std::int64_t first = 0; first < positions; first += kBlock) {
        const std::int64_t last = std::min(positions, first + kBlock);
        if (channel_stride == 1) {
            for (std::int64_t t = first; t < last; ++t)
                std::copy(g + offsets[t], g + offsets[t] + used, to + t * width);
        } else {
            for (std::int64_t o = 0; o < used; ++o)
                for (std::int64_t t = first; t < last; ++t) to[t * width + o] = g[o * channel_stride + offsets[t]];
        }
        for (std::int64_t t = first; t < last; ++t) std::fill(to + t * width + used, to + (t + 1) * width, T{0});
    }
}

/// The reverse: out[o, t] = scale * from[t, o].
template <class T>
void unpack_outputs(const T* from, T scale, std::int64_t channel_stride, const std::vector<std::int64_t>& offsets,
                    std::int64_t used, std::int64_t width, T* out) {
    constexpr std::int64_t kBlock = 64;
    const auto positions = static_cast<std::int64_t>(offsets.size());
    for (std::int64_t first = 0; first < positions; first += kBlock) {
        const std::int64_t last = std::min(positions, first + kBlock);
        if (channel_stride == 1) {
            for (std::int64_t t = first; t < last; ++t)
                for (std::int64_t o = 0; o < used; ++o) out[offsets[t] + o] = scale * from[t * width + o];
        } else {
            for (std::int64_t o = 0; o < used; ++o)
                for (std::int64_t t = first; t < last; ++t)
                    out[o * channel_stride + offsets[t]] = scale * from[t * width + o];
        }
    }
}

/// One panel of the weight, `rows` of it: [rows, width] with rows = (down, across, channel) as in `Patches`,
/// zeros beyond; squared if asked. `weight` points at the panel's first output, [outputs, channels, taps].
template <class T>
void pack_weight(const T* weight, std::int64_t channels, std::int64_t taps, bool squared, std::int64_t used,
                 std::int64_t width, std::int64_t rows, T* to) {
    constexpr std::int64_t kBlock = 8;  // channels: what they touch stays in L1
    const std::int64_t inputs = channels * taps;
    for (std::int64_t first = 0; first < channels; first += kBlock) {
        const std::int64_t last = std::min(channels, first + kBlock);
        for (std::int64_t o = 0; o < used; ++o)
            for (std::int64_t c = first; c < last; ++c)
                for (std::int64_t tap = 0; tap < taps; ++tap) {
                    const T w = weight[o * inputs + c * taps + tap];
                    to[(tap * channels + c) * width + o] = squared ? w * w : w;
                }
    }
    for (std::int64_t d = 0; d < inputs; ++d) std::fill(to + d * width + used, to + (d + 1) * width, T{0});
    std::fill(to + inputs * width, to + rows * width, T{0});
}

}  // namespace saal
