// The driver: it orders the tiles so that what they read is in a near cache. A thread takes some samples and
// some panels of outputs. Samples go in chunks, inputs in blocks of strips:
//
//     for chunk of samples:             packs G in panels
//         for block of strips:          packs A (and X') of the chunk's samples in strips
//             for panel:                one tile of W serves all samples of the chunk
//                 for sample of chunk:  forms the tile of M, or reads it where it is materialized;
//                                       sums it, or maps it and multiplies it with X'
//
// The order of a sample's sums does not depend on the threads.
#include "conv/tiles.h"

#include <optional>
#include <stdexcept>
#include <vector>

#include "conv/checks.h"
#include "conv/pack.h"
#include "conv/select_kernels.h"
#include "conv/winograd.h"
#include "support/buffer.h"
#include "support/workers.h"

namespace saal {
namespace {

constexpr std::int64_t kChunkPositions = 256;  // a chunk takes samples until it has about so many positions
constexpr std::int64_t kBlockBytes = 3 << 17;  // of a block's strips: with G and the outputs they fit L2
constexpr std::int64_t kBlockStrips = 16;      // of a block, at most: its step stays in L1

/// A job's arrays. Those that it does not need are null.
template <class T>
struct Arrays {
    const Images<const T>*a, *g;  // M's factors
    T* materialized;              // M: a norm writes it; a step reads it in place of a and g
    const Images<const T>* x;     // a step's input
    const Images<T>* out;
    const T* scales;  // of a step
};

/// A norm or a step, its packed arrays, and the parts that its threads take.
template <class T>
class TileJob {
  public:
    TileJob(const TileKernels<T>& kernels, const Arrays<T>& given, const Convolution<T>& layer,
            const Rule& rule, int threads)
        : kernels_(kernels),
          layer_(layer),
          rule_(rule),
          scales_(given.scales),
          materialized_(given.materialized),
          count_(given.x == nullptr ? given.a->count : given.x->count),
          channels_((given.x == nullptr ? given.a->channels : given.x->channels) / layer.groups),
          inputs_(channels_ * layer.kernel[0] * layer.kernel[1]),
          panels_{(given.x == nullptr ? given.g->channels : given.out->channels) / layer.groups,
                  kernels.width} {
        if (given.a != nullptr) {
            g_ = flattened(*given.g);
            a_patches_.emplace(*given.a, layer, given.g->height, given.g->width);
            a_positions_ = a_patches_->positions();
        }
        if (given.x != nullptr) {
            x_patches_.emplace(*given.x, layer, given.out->height, given.out->width);
            out_ = flattened(*given.out);
            x_positions_ = x_patches_->positions();
        }
        strips_ = (inputs_ + kStrip - 1) / kStrip;
        units_ = layer.groups * panels_.count();
        const std::int64_t positions = std::max<std::int64_t>(1, a_positions_ + x_positions_);
        chunk_ = std::clamp<std::int64_t>(kChunkPositions / positions, 1, std::max<std::int64_t>(1, count_));
        const std::int64_t bytes = chunk_ * positions * kStrip * static_cast<std::int64_t>(sizeof(T));
        block_ = std::clamp<std::int64_t>(kBlockBytes / bytes, 1, std::min(kBlockStrips, strips_));
        divide(threads);
        for (int i = 0; i < sample_parts_ * unit_parts_; ++i) scratch_.emplace_back(scratch_size());
        if (reads_weight()) weight_ = Buffer<T>(units_ * unit_size());
        sums_.assign(static_cast<std::size_t>(is_step() ? 0 : count_ * units_), 0.0);
    }

    /// Computes the norm's sums, or the step's outputs.
    void run() {
        Workers workers(sample_parts_ * unit_parts_);
        if (reads_weight())
            workers.run(units_, [this](std::int64_t begin, std::int64_t end) {
                for (std::int64_t unit = begin; unit < end; ++unit) pack_weight_of(unit);
            });
        workers.run(sample_parts_ * unit_parts_, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t part = begin; part < end; ++part) {
                const std::int64_t i = part / unit_parts_;
                const std::int64_t j = part % unit_parts_;
                const std::int64_t end = count_ * (i + 1) / sample_parts_;
                for (std::int64_t n = count_ * i / sample_parts_; n < end; n += chunk_)
                    chunk(scratch_[static_cast<std::size_t>(part)].get(), n, std::min(chunk_, end - n),
                          units_ * j / unit_parts_, units_ * (j + 1) / unit_parts_);
            }
        });
    }

    /// Sample n's norm.
    double sum(std::int64_t n) const {
        double total = 0.0;
        for (std::int64_t unit = 0; unit < units_; ++unit)
            total += sums_[static_cast<std::size_t>(n * units_ + unit)];
        return total;
    }

  private:
    /// A thread's scratch. Half a panel takes the place of a whole one.
    struct Scratch {
        T *g, *out, *a, *x, *step, *a_pixels, *x_pixels;
    };

    /// Divides the samples among the threads, and the panels too where samples are fewer than threads.
    void divide(int threads) {
        const double work =
            static_cast<double>(count_) * static_cast<double>(a_positions_ + 2 * x_positions_) *
            static_cast<double>(inputs_) * static_cast<double>(panels_.outputs * layer_.groups);
        const int team = useful_threads(work, threads);
        sample_parts_ = static_cast<int>(std::clamp<std::int64_t>(count_, 1, team));
        unit_parts_ = static_cast<int>(std::clamp<std::int64_t>(units_, 1, team / sample_parts_));
    }

    bool forms_gradient() const { return a_patches_.has_value(); }
    bool is_step() const { return x_patches_.has_value(); }
    bool reads_weight() const { return rule_.map == Map::kAdaptive || is_step(); }

    std::int64_t unit_size() const { return strips_ * kStrip * panels_.width; }

    std::int64_t g_size() const { return chunk_ * panels_.count() * a_positions_ * panels_.width; }
    std::int64_t out_size() const { return chunk_ * panels_.count() * x_positions_ * panels_.width; }
    std::int64_t a_size() const { return chunk_ * block_ * a_positions_ * kStrip; }
    std::int64_t x_size() const { return chunk_ * block_ * x_positions_ * kStrip; }
    std::int64_t step_size() const { return block_ * kStrip * panels_.width; }
    std::int64_t a_pixels() const { return forms_gradient() ? a_patches_->scratch() : 0; }
    std::int64_t x_pixels() const { return is_step() ? x_patches_->scratch() : 0; }
    std::int64_t scratch_size() const {
        return g_size() + out_size() + a_size() + x_size() + step_size() + chunk_ * (a_pixels() + x_pixels());
    }

    T* weight_of(std::int64_t unit) const { return weight_.get() + unit * unit_size(); }

    void pack_weight_of(std::int64_t unit) {
        const std::int64_t panel = unit % panels_.count();
        const std::int64_t first = unit / panels_.count() * panels_.outputs + panel * panels_.width;
        pack_weight(layer_.weight + first * inputs_, channels_, inputs_ / channels_, panels_.used(panel),
                    panels_.width_of(panel), strips_ * kStrip, weight_of(unit));
    }

    /// Samples [n, n + count), panels [begin, end) of all groups' panels.
    void chunk(T* scratch, std::int64_t n, std::int64_t count, std::int64_t begin, std::int64_t end) {
        Scratch at;
        at.g = scratch;
        at.out = at.g + g_size();
        at.a = at.out + out_size();
        at.x = at.a + a_size();
        at.step = at.x + x_size();
        at.a_pixels = at.step + step_size();
        at.x_pixels = at.a_pixels + chunk_ * a_pixels();
        for (std::int64_t s = 0; s < count; ++s) {
            if (forms_gradient()) a_patches_->prepare(n + s, at.a_pixels + s * a_pixels());
            if (is_step()) x_patches_->prepare(n + s, at.x_pixels + s * x_pixels());
        }
        const std::int64_t panels = panels_.count();
        for (std::int64_t group = begin / panels; group * panels < end; ++group)
            of_group(at, n, count, group, std::max<std::int64_t>(0, begin - group * panels),
                     std::min(panels, end - group * panels));
    }

    /// Panels [begin, end) of one group.
    void of_group(const Scratch& at, std::int64_t n, std::int64_t count, std::int64_t group,
                  std::int64_t begin, std::int64_t end) {
        const auto each = [&](const auto& use) {
            for (std::int64_t panel = begin; panel < end; ++panel)
                for (std::int64_t s = 0; s < count; ++s)
                    use(panel, s, group * panels_.outputs + panel * panels_.width,
                        s * panels_.count() + panel);
        };
        if (forms_gradient())
            each([&](std::int64_t panel, std::int64_t s, std::int64_t channel, std::int64_t place) {
                pack_outputs(g_, g_.data + (n + s) * g_.count_stride + channel * g_.channel_stride,
                             panels_.used(panel), panels_.width_of(panel),
                             at.g + place * a_positions_ * panels_.width);
            });
        if (is_step()) std::fill(at.out, at.out + out_size(), T{0});
        for (std::int64_t first = 0; first < strips_; first += block_) {
            const std::int64_t strips = std::min(block_, strips_ - first);
            for (std::int64_t s = 0; s < count; ++s)
                for (std::int64_t i = 0; i < strips; ++i) {
                    if (forms_gradient())
                        a_patches_->strip(a_patches_->pixels(n + s, at.a_pixels + s * a_pixels()), group,
                                          first + i, at.a + (s * strips + i) * a_positions_ * kStrip);
                    if (is_step())
                        x_patches_->strip(x_patches_->pixels(n + s, at.x_pixels + s * x_pixels()), group,
                                          first + i, at.x + (s * strips + i) * x_positions_ * kStrip);
                }
            each([&](std::int64_t panel, std::int64_t s, std::int64_t, std::int64_t place) {
                const std::int64_t unit = group * panels_.count() + panel;
                Tile<T> tile;
                tile.positions = a_positions_;
                tile.strips = strips;
                tile.inputs = at.a + s * strips * a_positions_ * kStrip;
                tile.outputs = at.g + place * a_positions_ * panels_.width;
                const std::int64_t within = first * kStrip * panels_.width_of(panel);
                tile.weight = weight_of(unit) + within;
                tile.materialized = materialized_ == nullptr
                                        ? nullptr
                                        : materialized_ + ((n + s) * units_ + unit) * unit_size() + within;
                tile.map = rule_.map;
                tile.q = rule_.q;
                tile.half = panels_.half(panel);
                if (!is_step()) {
                    sums_[static_cast<std::size_t>((n + s) * units_ + unit)] += kernels_.norm(tile);
                    return;
                }
                kernels_.step(tile, scales_[n + s], true, at.step);
                kernels_.multiply(x_positions_, strips, tile.half, at.x + s * strips * x_positions_ * kStrip,
                                  at.step, at.out + place * x_positions_ * panels_.width);
            });
        }
        if (!is_step()) return;
        each([&](std::int64_t panel, std::int64_t s, std::int64_t channel, std::int64_t place) {
            unpack_outputs(at.out + place * x_positions_ * panels_.width, out_,
                           out_.data + (n + s) * out_.count_stride + channel * out_.channel_stride,
                           panels_.used(panel), panels_.width_of(panel));
        });
    }

    const TileKernels<T>& kernels_;
    Convolution<T> layer_;
    Rule rule_;
    const T* scales_;
    T* materialized_;
    Images<const T> g_{};
    Images<T> out_{};
    std::optional<Patches<T>> a_patches_;  // none where a step reads M
    std::optional<Patches<T>> x_patches_;  // none for a norm
    std::int64_t count_;                   // samples
    std::int64_t channels_, inputs_;       // of a group: inputs = channels × kernel
    Panels panels_;                        // of a group
    std::int64_t strips_, units_, a_positions_ = 0, x_positions_ = 0, chunk_, block_;
    int sample_parts_ = 1, unit_parts_ = 1;
    std::vector<Buffer<T>> scratch_;
    Buffer<T> weight_;
    std::vector<double> sums_;
};

constexpr std::int64_t kWidestPanel = 32;  // of any instruction set: every panel's width divides it

}  // namespace

std::int64_t materialized_size(std::int64_t outputs, std::int64_t inputs, std::int64_t groups) {
    check(outputs >= 0 && inputs >= 0 && groups > 0 && outputs % groups == 0,
          "outputs and inputs >= 0, groups that divide the outputs");
    check((static_cast<double>(outputs) + static_cast<double>(groups) * kWidestPanel) *
                  (static_cast<double>(inputs) + kStrip) <
              kMostNumbers,
          "outputs and inputs whose product fits memory");
    const std::int64_t columns = (outputs / groups + kWidestPanel - 1) / kWidestPanel * kWidestPanel;
    return groups * columns * ((inputs + kStrip - 1) / kStrip * kStrip);
}

template <class T>
void tile_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
               const Rule& rule, int threads, const std::string& isa, T* norms, T* materialized) {
    check_factors(a, g, layer);
    if (channels_last(a) && channels_last(g) && winograd_fits(layer, a.channels, g.channels) &&
        winograd_gains(g.height, g.width))
        return winograd_norm(a, g, layer, rule, threads, isa, norms, materialized);
    TileJob<T> job(tile_kernels<T>(isa), {&a, &g, materialized, nullptr, nullptr, nullptr}, layer, rule,
                   threads);
    job.run();
    for (std::int64_t n = 0; n < g.count; ++n) norms[n] = static_cast<T>(job.sum(n));
}

template <class T>
void tile_apply(const Images<const T>& a, const Images<const T>& g, const Images<const T>& x,
                const Convolution<T>& layer, const Rule& rule, const T* scales, int threads,
                const std::string& isa, const Images<T>& out) {
    check_factors(a, g, layer);
    check_reading(x, layer, out);
    check(x.count == a.count && x.channels == a.channels, "x of as many samples and channels as a");
    check(out.channels == g.channels, "out of as many channels as g");
    TileJob<T>(tile_kernels<T>(isa), {&a, &g, nullptr, &x, &out, scales}, layer, rule, threads).run();
}

template <class T>
void apply_materialized(const T* materialized, const Images<const T>& x, const Convolution<T>& layer,
                        const Rule& rule, const T* scales, int threads, const std::string& isa,
                        const Images<T>& out) {
    check_reading(x, layer, out);
    if (channels_last(x) && channels_last(out) && winograd_fits(layer, x.channels, out.channels) &&
        winograd_gains(out.height, out.width))
        return winograd_apply(materialized, x, layer, rule, scales, threads, isa, out);
    T* const gradients = const_cast<T*>(materialized);  // a step only reads them
    TileJob<T>(tile_kernels<T>(isa), {nullptr, nullptr, gradients, &x, &out, scales}, layer, rule, threads)
        .run();
}

#define SAAL_INSTANTIATE(T)                                                                             \
    template void tile_norm<T>(const Images<const T>&, const Images<const T>&, const Convolution<T>&,   \
                               const Rule&, int, const std::string&, T*, T*);                           \
    template void tile_apply<T>(const Images<const T>&, const Images<const T>&, const Images<const T>&, \
                                const Convolution<T>&, const Rule&, const T*, int, const std::string&,  \
                                const Images<T>&);                                                      \
    template void apply_materialized<T>(const T*, const Images<const T>&, const Convolution<T>&,        \
                                        const Rule&, const T*, int, const std::string&, const Images<T>&);
SAAL_INSTANTIATE(float)
SAAL_INSTANTIATE(double)

}  // namespace saal
