// The driver: tiles go in chunks whose transformed inputs fit L2, outputs in panels.
//
//     for chunk of tiles:           Bᵀ d B of its tiles
//         for panel of outputs:     16 matrix products; then the panel's outputs, or the chunk's share of M
//
// The order of the sums does not depend on the threads.
#include "conv/winograd.h"

#include <array>
#include <vector>

#include "conv/pack.h"
#include "conv/select_kernels.h"
#include "support/buffer.h"
#include "support/workers.h"

namespace saal {
namespace {

constexpr std::int64_t kPlaces = 16, kTaps = 9;
constexpr std::int64_t kPlaceGap = 32;  // numbers between places: without it, all use one set of the cache
constexpr std::int64_t kChunkNumbers = 8192;  // tiles × channels of a chunk, about
constexpr std::int64_t kMinChunkTiles = 64, kMaxChunkTiles = 128;
constexpr std::int64_t kChannelMultiple = 16;  // channels fill vectors of any instruction set
constexpr std::int64_t kMinImageTiles = 8;     // for fewer, the transform costs what it saves

/// The tiles of images of `height` × `width` outputs, numbered through all samples.
template <class T>
class Tiling {
  public:
    Tiling(const Images<const T>& x, const std::int64_t (&before)[2], std::int64_t height, std::int64_t width)
        : x_(x),
          top_(before[0]),
          left_(before[1]),
          height_(height),
          width_(width),
          down_((height + 1) / 2),
          across_((width + 1) / 2),
          zeros_(static_cast<std::size_t>(x.channels), T{0}) {}

    std::int64_t each() const { return down_ * across_; }
    std::int64_t channels() const { return x_.channels; }

    /// The 4×4 pixels that a tile reads.
    std::array<const T*, kPlaces> window(std::int64_t tile) const {
        const std::int64_t within = tile % each();
        const T* image = x_.data + tile / each() * x_.count_stride;
        const std::int64_t top = within / across_ * 2 - top_, left = within % across_ * 2 - left_;
        std::array<const T*, kPlaces> pixels;
        for (std::int64_t i = 0; i < 4; ++i)
            for (std::int64_t j = 0; j < 4; ++j) {
                const std::int64_t h = top + i, w = left + j;
                const bool inside = h >= 0 && h < x_.height && w >= 0 && w < x_.width;
                pixels[static_cast<std::size_t>(4 * i + j)] =
                    inside ? image + h * x_.height_stride + w * x_.width_stride : zeros_.data();
            }
        return pixels;
    }

    /// The 2×2 pixels of a tile's outputs, from `channel` on; `beyond` in place of those outside of the
    /// image.
    template <class U>
    std::array<U*, 4> outputs(const Images<U>& out, std::int64_t tile, std::int64_t channel,
                              U* beyond) const {
        const std::int64_t within = tile % each();
        U* image = out.data + tile / each() * out.count_stride + channel;
        const std::int64_t top = within / across_ * 2, left = within % across_ * 2;
        std::array<U*, 4> pixels;
        for (std::int64_t i = 0; i < 2; ++i)
            for (std::int64_t j = 0; j < 2; ++j)
                pixels[static_cast<std::size_t>(2 * i + j)] =
                    top + i < height_ && left + j < width_
                        ? image + (top + i) * out.height_stride + (left + j) * out.width_stride
                        : beyond;
        return pixels;
    }

  private:
    Images<const T> x_;
    std::int64_t top_, left_, height_, width_, down_, across_;
    std::vector<T> zeros_;
};

/// The kernels, the tiles of x and the panels of the outputs, which all three functions use.
template <class T>
class Chunks {
  public:
    Chunks(const std::string& isa, const Images<const T>& x, const Convolution<T>& layer,
           std::int64_t outputs, std::int64_t height, std::int64_t width)
        : transforms(winograd_kernels<T>(isa)),
          kernels(tile_kernels<T>(isa)),
          tiling(x, layer.before, height, width),
          channels(x.channels),
          panels{outputs, kernels.width},
          most(std::clamp(kChunkNumbers / channels, kMinChunkTiles, kMaxChunkTiles)) {}

    /// The steps from one of the 16 places to the next.
    std::int64_t inputs_place(std::int64_t tiles) const { return tiles * channels + kPlaceGap; }
    std::int64_t outputs_place(std::int64_t tiles) const { return tiles * panels.width + kPlaceGap; }
    std::int64_t weights_place() const { return channels * panels.width + kPlaceGap; }

    std::int64_t inputs_size() const { return kPlaces * inputs_place(most); }
    std::int64_t outputs_size() const { return kPlaces * outputs_place(most); }
    std::int64_t weights_size() const { return kPlaces * weights_place(); }
    std::int64_t plain_size() const { return kTaps * channels * panels.width; }

    /// Bᵀ d B of tiles [first, first + count).
    void read(std::int64_t first, std::int64_t count, T* to) const {
        for (std::int64_t t = 0; t < count; ++t)
            transforms.inputs(tiling.window(first + t).data(), channels, count, inputs_place(count),
                              to + t * kStrip);
    }

    /// One panel's outputs of a chunk that has been read.
    void write(std::int64_t first, std::int64_t count, std::int64_t panel, const T* inputs, const T* weights,
               T* scratch, const Images<T>& out) const {
        const bool half = panels.half(panel);
        const std::int64_t width = panels.width_of(panel);
        for (std::int64_t i = 0; i < kPlaces; ++i) {
            T* const to = scratch + i * outputs_place(count);
            std::fill(to, to + count * width, T{0});
            kernels.multiply(count, channels / kStrip, half, inputs + i * inputs_place(count),
                             weights + i * weights_place(), to);
        }
        for (std::int64_t t = 0; t < count; ++t)
            transforms.outputs(
                scratch + t * width, half, outputs_place(count),
                tiling.outputs(out, first + t, panel * panels.width, static_cast<T*>(nullptr)).data());
    }

    /// G w Gᵀ of a panel of W, or of W + scale δ(M) where `materialized`, M, is not null.
    void transform(std::int64_t panel, const T* weight, const T* materialized, const Rule& rule, T scale,
                   T* to) const {
        T* const gradient = const_cast<T*>(materialized);  // it is only read
        transforms.weights({channels, panels.half(panel), weight, gradient, rule.map, rule.q}, scale,
                           weights_place(), to);
    }

    const WinogradKernels<T>& transforms;
    const TileKernels<T>& kernels;
    Tiling<T> tiling;
    std::int64_t channels;
    Panels panels;
    std::int64_t most;  // tiles of a chunk
};

/// One panel of W, or where `back`, of the weight that maps gradients back: 9 × [channels, width].
template <class T>
void pack_panel(const Convolution<T>& layer, const Chunks<T>& chunks, bool back, std::int64_t panel, T* to) {
    const std::int64_t channels = chunks.channels, outputs = chunks.panels.outputs;
    const std::int64_t first = panel * chunks.panels.width, width = chunks.panels.width_of(panel);
    if (!back)
        return pack_weight(layer.weight + first * channels * kTaps, channels, kTaps, width, width,
                           kTaps * channels, to);
    for (std::int64_t c = 0; c < channels; ++c) {  // an output of the layer itself
        const T* from = layer.weight + (c * outputs + first) * kTaps;
        for (std::int64_t o = 0; o < width; ++o)
            for (std::int64_t tap = 0; tap < kTaps; ++tap)
                to[((kTaps - 1 - tap) * channels + c) * width + o] = from[o * kTaps + tap];
    }
}

/// All panels of W.
template <class T>
Buffer<T> packed(Workers& workers, const Convolution<T>& layer, const Chunks<T>& chunks) {
    Buffer<T> to(chunks.panels.count() * chunks.plain_size());
    workers.run(chunks.panels.count(), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t panel = begin; panel < end; ++panel)
            pack_panel(layer, chunks, false, panel, to.get() + panel * chunks.plain_size());
    });
    return to;
}

int threads_for(std::int64_t tiles, std::int64_t inputs, std::int64_t outputs, int threads) {
    const double work =
        static_cast<double>(kPlaces * tiles) * static_cast<double>(inputs) * static_cast<double>(outputs);
    return useful_threads(work, threads);
}

/// One thread's share of `winograd_norm`.
template <class T>
class Norm {
  public:
    Norm(const Chunks<T>& chunks, const Images<const T>& g, const Rule& rule)
        : chunks_(chunks),
          g_(g),
          rule_(rule),
          zeros_(static_cast<std::size_t>(chunks.panels.width), T{0}),
          inputs_(chunks.inputs_size()),
          gradients_(chunks.outputs_size()),
          products_(chunks.panels.count() * chunks.weights_size()) {}

    /// Σ φ(M) of sample n. Writes M to `materialized`, unless that is null.
    double of(std::int64_t n, const T* weight, T* materialized) {
        const std::int64_t each = chunks_.tiling.each();
        for (std::int64_t begin = 0; begin < each; begin += chunks_.most)
            add(n * each + begin, std::min(chunks_.most, each - begin), begin > 0);
        double total = 0.0;
        for (std::int64_t panel = 0; panel < chunks_.panels.count(); ++panel) {
            const std::int64_t at = panel * chunks_.plain_size();
            total += chunks_.transforms.norm(
                products_.get() + panel * chunks_.weights_size(), chunks_.weights_place(),
                {chunks_.channels, chunks_.panels.half(panel), weight + at,
                 materialized == nullptr ? nullptr : materialized + at, rule_.map, rule_.q});
        }
        return total;
    }

  private:
    /// The products of a chunk of tiles, added to those of earlier chunks where `on_top`.
    void add(std::int64_t first, std::int64_t count, bool on_top) {
        chunks_.read(first, count, inputs_.get());
        for (std::int64_t panel = 0; panel < chunks_.panels.count(); ++panel) {
            const bool half = chunks_.panels.half(panel);
            const T* const beyond = zeros_.data();
            for (std::int64_t t = 0; t < count; ++t) {
                const auto pixels =
                    chunks_.tiling.outputs(g_, first + t, panel * chunks_.panels.width, beyond);
                chunks_.transforms.gradients(pixels.data(), half, chunks_.outputs_place(count),
                                             gradients_.get() + t * chunks_.panels.width_of(panel));
            }
            for (std::int64_t i = 0; i < kPlaces; ++i) {
                T* const sums =
                    products_.get() + panel * chunks_.weights_size() + i * chunks_.weights_place();
                chunks_.kernels.step(
                    {count, chunks_.channels / kStrip, inputs_.get() + i * chunks_.inputs_place(count),
                     gradients_.get() + i * chunks_.outputs_place(count), sums, nullptr, Map::kSquare, 0.0,
                     half},
                    T{1}, on_top, sums);
            }
        }
    }

    const Chunks<T>& chunks_;
    const Images<const T>& g_;
    Rule rule_;
    std::vector<T> zeros_;
    Buffer<T> inputs_, gradients_, products_;
};

}  // namespace

bool winograd_channels_fit(std::int64_t inputs, std::int64_t outputs) {
    return inputs > 0 && outputs > 0 && inputs % kChannelMultiple == 0 && outputs % kChannelMultiple == 0;
}

template <class T>
bool winograd_fits(const Convolution<T>& layer, std::int64_t inputs, std::int64_t outputs) {
    for (int side = 0; side < 2; ++side)
        if (layer.kernel[side] != 3 || layer.stride[side] != 1 || layer.dilation[side] != 1) return false;
    return layer.groups == 1 && winograd_channels_fit(inputs, outputs);
}

bool winograd_gains(std::int64_t height, std::int64_t width) {
    return (height + 1) / 2 * ((width + 1) / 2) >= kMinImageTiles;
}

template <class T>
void winograd_conv(const Images<const T>& x, const Convolution<T>& layer, bool back, int threads,
                   const std::string& isa, const Images<T>& out) {
    const Chunks<T> chunks(isa, x, layer, out.channels, out.height, out.width);
    const std::int64_t panels = chunks.panels.count(), tiles = x.count * chunks.tiling.each();
    const Buffer<T> weights(panels * chunks.weights_size());
    const auto weights_of = [&](std::int64_t panel) { return weights.get() + panel * chunks.weights_size(); };
    Workers workers(threads_for(tiles, x.channels, out.channels, threads));
    workers.run(panels, [&](std::int64_t begin, std::int64_t end) {
        const Buffer<T> plain(chunks.plain_size());
        for (std::int64_t panel = begin; panel < end; ++panel) {
            pack_panel(layer, chunks, back, panel, plain.get());
            chunks.transform(panel, plain.get(), nullptr, {Map::kSquare, 0.0}, T{0}, weights_of(panel));
        }
    });
    workers.run(tiles, [&](std::int64_t begin, std::int64_t end) {
        const Buffer<T> inputs(chunks.inputs_size()), scratch(chunks.outputs_size());
        for (std::int64_t first = begin; first < end; first += chunks.most) {
            const std::int64_t count = std::min(chunks.most, end - first);
            chunks.read(first, count, inputs.get());
            for (std::int64_t panel = 0; panel < panels; ++panel)
                chunks.write(first, count, panel, inputs.get(), weights_of(panel), scratch.get(), out);
        }
    });
}

template <class T>
void winograd_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
                   const Rule& rule, int threads, const std::string& isa, T* norms, T* materialized) {
    const Chunks<T> chunks(isa, a, layer, g.channels, g.height, g.width);
    const std::int64_t of_sample = chunks.panels.count() * chunks.plain_size();
    Workers workers(threads_for(g.count * chunks.tiling.each(), a.channels, g.channels, threads));
    const Buffer<T> weight = packed(workers, layer, chunks);
    workers.run(g.count, [&](std::int64_t begin, std::int64_t end) {
        Norm<T> norm(chunks, g, rule);
        for (std::int64_t n = begin; n < end; ++n)
            norms[n] = static_cast<T>(
                norm.of(n, weight.get(), materialized == nullptr ? nullptr : materialized + n * of_sample));
    });
}

template <class T>
void winograd_apply(const T* materialized, const Images<const T>& x, const Convolution<T>& layer,
                    const Rule& rule, const T* scales, int threads, const std::string& isa,
                    const Images<T>& out) {
    const Chunks<T> chunks(isa, x, layer, out.channels, out.height, out.width);
    const std::int64_t panels = chunks.panels.count(), each = chunks.tiling.each();
    const std::int64_t chunks_each = (each + chunks.most - 1) / chunks.most;
    Workers workers(threads_for(x.count * each, x.channels, out.channels, threads));
    const Buffer<T> weight = packed(workers, layer, chunks);
    workers.run(x.count * chunks_each, [&](std::int64_t begin, std::int64_t end) {
        const Buffer<T> inputs(chunks.inputs_size()), scratch(chunks.outputs_size()),
            weights(chunks.weights_size());
        for (std::int64_t chunk = begin; chunk < end; ++chunk) {
            const std::int64_t n = chunk / chunks_each, from = chunk % chunks_each * chunks.most;
            const std::int64_t count = std::min(chunks.most, each - from), first = n * each + from;
            chunks.read(first, count, inputs.get());
            for (std::int64_t panel = 0; panel < panels; ++panel) {
                const std::int64_t at = panel * chunks.plain_size();
                chunks.transform(panel, weight.get() + at,
                                 materialized + n * panels * chunks.plain_size() + at, rule, scales[n],
                                 weights.get());
                chunks.write(first, count, panel, inputs.get(), weights.get(), scratch.get(), out);
            }
        }
    });
}

#define SAAL_INSTANTIATE(T)                                                                               \
    template bool winograd_fits<T>(const Convolution<T>&, std::int64_t, std::int64_t);                    \
    template void winograd_conv<T>(const Images<const T>&, const Convolution<T>&, bool, int,              \
                                   const std::string&, const Images<T>&);                                 \
    template void winograd_norm<T>(const Images<const T>&, const Images<const T>&, const Convolution<T>&, \
                                   const Rule&, int, const std::string&, T*, T*);                         \
    template void winograd_apply<T>(const T*, const Images<const T>&, const Convolution<T>&, const Rule&, \
                                    const T*, int, const std::string&, const Images<T>&);
SAAL_INSTANTIATE(float)
SAAL_INSTANTIATE(double)

}  // namespace saal
