// The driver: which tile is formed when, so that what it reads is near. A thread takes some samples and some
// panels of outputs. Samples go in chunks, inputs in blocks of strips:
//
//     for chunk of samples:             G in panels
//         for block of strips:          A (and X') of the chunk's samples in strips
//             for panel:                a tile of W comes near, and serves all samples of the chunk
//                 for sample of chunk:  the tile of M: summed, or mapped and multiplied with X'
//
// A tile of M is formed, and kept where that is asked for; or it is one that was kept.
// A sample's sums are taken in one order, whatever the threads.
#include "conv/tiles.h"

#include <optional>
#include <stdexcept>
#include <vector>

#include "conv/pack.h"
#include "conv/select_kernels.h"
#include "conv/winograd.h"
#include "support/workers.h"

namespace saal {
namespace {

constexpr std::int64_t kPositions = 256;       // of a chunk of samples, at least, where there are as many
constexpr std::int64_t kBlockBytes = 3 << 17;  // of a block's strips: with G and the push they fit L2
constexpr std::int64_t kStrips = 16;           // of a block, at most: its step stays in L1
constexpr double kWorkPerThread = 1 << 20;     // multiply-adds: below, a thread costs more than it does

void check(bool fits, const char* expected) {
    if (!fits) throw std::invalid_argument(std::string("expected ") + expected);
}

template <class T>
void check_layer(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer) {
    check(layer.groups > 0 && a.channels % layer.groups == 0 && g.channels % layer.groups == 0,
          "channels that groups divide");
    check(a.count == g.count, "as many inputs as output gradients");
    for (int side = 0; side < 2; ++side)
        check(layer.kernel[side] > 0 && layer.stride[side] > 0 && layer.dilation[side] > 0 &&
                  layer.before[side] >= 0,
              "kernel, stride and dilation > 0, padding >= 0");
}

/// What a call is given; what it has no use for is null.
template <class T>
struct Given {
    const Images<const T>*a, *g;  // from which M is formed
    T* held;                      // kept in a norm; read in a step without a and g
    const Images<const T>* x;     // a step's
    const Images<T>* out;
    Step<T> step;
};

/// One call: what its threads read, and how they divide it.
template <class T>
class Call {
  public:
    Call(const Kernels<T>& kernels, const Given<T>& given, const Convolution<T>& layer, const Rule& rule,
         int threads)
        : kernels_(kernels),
          layer_(layer),
          rule_(rule),
          step_(given.step),
          held_(given.held),
          count_(given.x == nullptr ? given.a->count : given.x->count),
          channels_((given.x == nullptr ? given.a->channels : given.x->channels) / layer.groups),
          inputs_(channels_ * layer.kernel[0] * layer.kernel[1]),
          panels_{(given.x == nullptr ? given.g->channels : given.out->channels) / layer.groups,
                  kernels.width} {
        if (given.a != nullptr) {
            g_ = flattened(*given.g);
            a_patches_.emplace(*given.a, layer, given.g->height, given.g->width);
            t_ = a_patches_->positions();
        }
        if (given.x != nullptr) {
            x_patches_.emplace(*given.x, layer, given.out->height, given.out->width);
            out_ = flattened(*given.out);
            pushed_ = x_patches_->positions();
        }
        strips_ = (inputs_ + kStrip - 1) / kStrip;
        units_ = layer.groups * panels_.count();
        const std::int64_t positions = std::max<std::int64_t>(1, t_ + pushed_);
        chunk_ = std::clamp<std::int64_t>(kPositions / positions, 1, std::max<std::int64_t>(1, count_));
        const std::int64_t bytes = chunk_ * positions * kStrip * static_cast<std::int64_t>(sizeof(T));
        block_ = std::clamp<std::int64_t>(kBlockBytes / bytes, 1, std::min(kStrips, strips_));
        divide(threads);
        for (int i = 0; i < sample_parts_ * unit_parts_; ++i) scratch_.emplace_back(scratch_size());
        if (reads_weight()) weight_ = Buffer<T>(units_ * unit_size());
        sums_.assign(static_cast<std::size_t>(pushes() ? 0 : count_ * units_), 0.0);
    }

    /// The norm's sums, or the step's effect.
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

    double sum(std::int64_t n) const {
        double total = 0.0;
        for (std::int64_t unit = 0; unit < units_; ++unit)
            total += sums_[static_cast<std::size_t>(n * units_ + unit)];
        return total;
    }

  private:
    /// A thread's scratch. A panel has a place of full width, whether half or not.
    struct Parts {
        T *outputs, *push, *a, *x, *step, *a_pixels, *x_pixels;
    };

    /// Threads share the samples; few samples' panels too.
    void divide(int threads) {
        const double work = static_cast<double>(count_) * static_cast<double>(t_ + 2 * pushed_) *
                            static_cast<double>(inputs_) *
                            static_cast<double>(panels_.outputs * layer_.groups);
        const auto useful = static_cast<int>(std::min(work / kWorkPerThread, 4096.0));
        const int team = std::clamp(useful, 1, std::max(threads, 1));
        sample_parts_ = static_cast<int>(std::clamp<std::int64_t>(count_, 1, team));
        unit_parts_ = static_cast<int>(std::clamp<std::int64_t>(units_, 1, team / sample_parts_));
    }

    bool forms() const { return a_patches_.has_value(); }
    bool pushes() const { return x_patches_.has_value(); }
    bool reads_weight() const { return rule_.map == Map::kAdaptive || step_.whole; }

    std::int64_t unit_size() const { return strips_ * kStrip * panels_.width; }

    std::int64_t outputs_size() const { return chunk_ * panels_.count() * t_ * panels_.width; }
    std::int64_t push_size() const { return chunk_ * panels_.count() * pushed_ * panels_.width; }
    std::int64_t a_size() const { return chunk_ * block_ * t_ * kStrip; }
    std::int64_t x_size() const { return chunk_ * block_ * pushed_ * kStrip; }
    std::int64_t step_size() const { return block_ * kStrip * panels_.width; }
    std::int64_t a_pixels() const { return forms() ? a_patches_->scratch() : 0; }
    std::int64_t x_pixels() const { return pushes() ? x_patches_->scratch() : 0; }
    std::int64_t scratch_size() const {
        return outputs_size() + push_size() + a_size() + x_size() + step_size() +
               chunk_ * (a_pixels() + x_pixels());
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
        Parts at;
        at.outputs = scratch;
        at.push = at.outputs + outputs_size();
        at.a = at.push + push_size();
        at.x = at.a + a_size();
        at.step = at.x + x_size();
        at.a_pixels = at.step + step_size();
        at.x_pixels = at.a_pixels + chunk_ * a_pixels();
        for (std::int64_t s = 0; s < count; ++s) {
            if (forms()) a_patches_->prepare(n + s, at.a_pixels + s * a_pixels());
            if (pushes()) x_patches_->prepare(n + s, at.x_pixels + s * x_pixels());
        }
        const std::int64_t panels = panels_.count();
        for (std::int64_t group = begin / panels; group * panels < end; ++group)
            of_group(at, n, count, group, std::max<std::int64_t>(0, begin - group * panels),
                     std::min(panels, end - group * panels));
    }

    /// Panels [begin, end) of one group.
    void of_group(const Parts& at, std::int64_t n, std::int64_t count, std::int64_t group, std::int64_t begin,
                  std::int64_t end) {
        const auto each = [&](const auto& use) {
            for (std::int64_t panel = begin; panel < end; ++panel)
                for (std::int64_t s = 0; s < count; ++s)
                    use(panel, s, group * panels_.outputs + panel * panels_.width,
                        s * panels_.count() + panel);
        };
        if (forms())
            each([&](std::int64_t panel, std::int64_t s, std::int64_t channel, std::int64_t place) {
                pack_outputs(g_, g_.data + (n + s) * g_.count_stride + channel * g_.channel_stride,
                             panels_.used(panel), panels_.width_of(panel),
                             at.outputs + place * t_ * panels_.width);
            });
        if (pushes()) std::fill(at.push, at.push + push_size(), T{0});
        for (std::int64_t first = 0; first < strips_; first += block_) {
            const std::int64_t strips = std::min(block_, strips_ - first);
            for (std::int64_t s = 0; s < count; ++s)
                for (std::int64_t i = 0; i < strips; ++i) {
                    if (forms())
                        a_patches_->strip(a_patches_->pixels(n + s, at.a_pixels + s * a_pixels()), group,
                                          first + i, at.a + (s * strips + i) * t_ * kStrip);
                    if (pushes())
                        x_patches_->strip(x_patches_->pixels(n + s, at.x_pixels + s * x_pixels()), group,
                                          first + i, at.x + (s * strips + i) * pushed_ * kStrip);
                }
            each([&](std::int64_t panel, std::int64_t s, std::int64_t, std::int64_t place) {
                const std::int64_t unit = group * panels_.count() + panel;
                Tile<T> tile;
                tile.positions = t_;
                tile.strips = strips;
                tile.inputs = at.a + s * strips * t_ * kStrip;
                tile.outputs = at.outputs + place * t_ * panels_.width;
                const std::int64_t within = first * kStrip * panels_.width_of(panel);
                tile.weight = weight_of(unit) + within;
                tile.held =
                    held_ == nullptr ? nullptr : held_ + ((n + s) * units_ + unit) * unit_size() + within;
                tile.map = rule_.map;
                tile.q = rule_.q;
                tile.half = panels_.half(panel);
                if (!pushes()) {
                    sums_[static_cast<std::size_t>((n + s) * units_ + unit)] += kernels_.norm(tile);
                    return;
                }
                kernels_.step(tile, step_.scales[n + s], step_.whole, at.step);
                kernels_.push(pushed_, strips, tile.half, at.x + s * strips * pushed_ * kStrip, at.step,
                              at.push + place * pushed_ * panels_.width);
            });
        }
        if (!pushes()) return;
        each([&](std::int64_t panel, std::int64_t s, std::int64_t channel, std::int64_t place) {
            unpack_outputs(at.push + place * pushed_ * panels_.width, out_,
                           out_.data + (n + s) * out_.count_stride + channel * out_.channel_stride,
                           panels_.used(panel), panels_.width_of(panel));
        });
    }

    const Kernels<T>& kernels_;
    Convolution<T> layer_;
    Rule rule_;
    Step<T> step_;
    T* held_;
    Images<const T> g_{};
    Images<T> out_{};
    std::optional<Patches<T>> a_patches_;     // none where M was kept
    std::optional<Patches<T>> x_patches_;     // none for a norm
    std::int64_t count_, channels_, inputs_;  // samples; of a group, its inputs being channels times kernel
    Panels panels_;                           // of a group
    std::int64_t strips_, units_, t_ = 0, pushed_ = 0, chunk_, block_;
    int sample_parts_ = 1, unit_parts_ = 1;
    std::vector<Buffer<T>> scratch_;
    Buffer<T> weight_;
    std::vector<double> sums_;
};

constexpr std::int64_t kHeldWidth = 32;  // the widest panel there is: every width divides it

template <class T>
void check_step(const Images<const T>& x, const Convolution<T>& layer, const Images<T>& out) {
    check(layer.groups > 0 && x.channels % layer.groups == 0 && out.channels % layer.groups == 0,
          "channels that groups divide");
    check(out.channel_stride == 1 || out.width_stride == 1, "out with channels or columns side by side");
    check(out.count == x.count, "out of as many samples as x");
}

}  // namespace

std::int64_t held_size(std::int64_t outputs, std::int64_t inputs, std::int64_t groups) {
    const std::int64_t columns = (outputs / groups + kHeldWidth - 1) / kHeldWidth * kHeldWidth;
    return groups * columns * ((inputs + kStrip - 1) / kStrip * kStrip);
}

template <class T>
void tile_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
               const Rule& rule, int threads, const std::string& isa, T* norms, T* held) {
    check_layer(a, g, layer);
    if (channels_last(a) && channels_last(g) && winograd_fits(layer, a.channels, g.channels) &&
        winograd_gains(g.height, g.width))
        return winograd_norm(a, g, layer, rule, threads, isa, norms, held);
    Call<T> call(kernels_of<T>(isa), {&a, &g, held, nullptr, nullptr, {nullptr, false}}, layer, rule,
                 threads);
    call.run();
    for (std::int64_t n = 0; n < g.count; ++n) norms[n] = static_cast<T>(call.sum(n));
}

template <class T>
void tile_apply(const Images<const T>& a, const Images<const T>& g, const Images<const T>& x,
                const Convolution<T>& layer, const Rule& rule, const Step<T>& step, int threads,
                const std::string& isa, const Images<T>& out) {
    check_layer(a, g, layer);
    check_step(x, layer, out);
    check(x.count == a.count && x.channels == a.channels, "x of as many samples and channels as a");
    check(out.channels == g.channels, "out of as many channels as g");
    Call<T>(kernels_of<T>(isa), {&a, &g, nullptr, &x, &out, step}, layer, rule, threads).run();
}

template <class T>
void held_apply(const T* held, const Images<const T>& x, const Convolution<T>& layer, const Rule& rule,
                const Step<T>& step, int threads, const std::string& isa, const Images<T>& out) {
    check_step(x, layer, out);
    if (channels_last(x) && channels_last(out) && step.whole &&
        winograd_fits(layer, x.channels, out.channels) && winograd_gains(out.height, out.width))
        return winograd_apply(held, x, layer, rule, step, threads, isa, out);
    T* const kept = const_cast<T*>(held);  // a step only reads it
    Call<T>(kernels_of<T>(isa), {nullptr, nullptr, kept, &x, &out, step}, layer, rule, threads).run();
}

#define SAAL_INSTANTIATE(T)                                                                                  \
    template void tile_norm<T>(const Images<const T>&, const Images<const T>&, const Convolution<T>&,        \
                               const Rule&, int, const std::string&, T*, T*);                                \
    template void tile_apply<T>(const Images<const T>&, const Images<const T>&, const Images<const T>&,      \
                                const Convolution<T>&, const Rule&, const Step<T>&, int, const std::string&, \
                                const Images<T>&);                                                           \
    template void held_apply<T>(const T*, const Images<const T>&, const Convolution<T>&, const Rule&,        \
                                const Step<T>&, int, const std::string&, const Images<T>&);
SAAL_INSTANTIATE(float)
SAAL_INSTANTIATE(double)

}  // namespace saal
