// Compares tiles and minimal filtering with plain loops, over layers of odd shapes in memory of exactly the
// right size. The tests build it with sanitizers. It prints each layer whose numbers are wrong, and returns
// their count.
#include <cmath>
#include <cstdio>
#include <vector>

#include "conv/tiles.h"
#include "conv/winograd.h"

namespace {

using saal::Images;
using saal::Map;

struct Shape {
    std::int64_t samples, channels, outputs, groups, height, width, other;  // per group; x is `other` larger
    std::int64_t kernel[2], stride[2], before[2], after[2], dilation[2];
    bool channels_last;
};

template <class T>
struct Filled {
    std::vector<T> numbers;
    Images<T> images;

    Filled(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w, bool channels_last, unsigned seed)
        : numbers(static_cast<std::size_t>(n * c * h * w)) {
        for (T& number : numbers) {
            seed = seed * 1664525U + 1013904223U;
            number = static_cast<T>(static_cast<int>(seed >> 29) - 3);  // whole: signs are exact
        }
        images = channels_last ? Images<T>{numbers.data(), n, c, h, w, c * h * w, 1, w * c, c}
                               : Images<T>{numbers.data(), n, c, h, w, c * h * w, h * w, w, 1};
    }
    Images<const T> read() const {
        return {images.data,           images.count,         images.channels,
                images.height,         images.width,         images.count_stride,
                images.channel_stride, images.height_stride, images.width_stride};
    }
    double at(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) const {
        if (h < 0 || h >= images.height || w < 0 || w >= images.width) return 0.0;
        return static_cast<double>(images.data[n * images.count_stride + c * images.channel_stride +
                                               h * images.height_stride + w * images.width_stride]);
    }
};

std::int64_t size_of(const Shape& s, int side, std::int64_t size) {
    return (size + s.before[side] + s.after[side] - (s.kernel[side] - 1) * s.dilation[side] - 1) /
               s.stride[side] +
           1;
}

double power(double m, double q) {
    return m == 0.0 ? 0.0 : std::pow(std::fabs(m), q);
}

template <class T>
bool right(const Shape& s, Map map, double q, int threads) {
    const std::int64_t channels = s.channels * s.groups, outputs = s.outputs * s.groups;
    const std::int64_t h = size_of(s, 0, s.height), w = size_of(s, 1, s.width);
    const std::int64_t h2 = size_of(s, 0, s.height + s.other), w2 = size_of(s, 1, s.width + s.other);
    const Filled<T> a(s.samples, channels, s.height, s.width, s.channels_last, 1);
    const Filled<T> x(s.samples, channels, s.height + s.other, s.width + s.other, s.channels_last, 2);
    const Filled<T> g(s.samples, outputs, h, w, s.channels_last, 3);
    const Filled<T> weight(outputs, s.channels, s.kernel[0], s.kernel[1], false, 4);
    const Filled<T> scales(s.samples, 1, 1, 1, false, 5);
    Filled<T> out(s.samples, outputs, h2, w2, s.channels_last, 6);
    std::vector<T> norms(static_cast<std::size_t>(s.samples));
    const saal::Convolution<T> layer{weight.numbers.data(),          {s.kernel[0], s.kernel[1]},
                                     {s.stride[0], s.stride[1]},     {s.before[0], s.before[1]},
                                     {s.dilation[0], s.dilation[1]}, s.groups};
    saal::tile_norm<T>(a.read(), g.read(), layer, {map, q}, threads, "", norms.data());
    saal::tile_apply<T>(a.read(), g.read(), x.read(), layer, {map, q}, scales.numbers.data(), threads, "",
                        out.images);
    std::vector<T> second_norms(norms.size());
    std::vector<T> materialized(static_cast<std::size_t>(
        s.samples * saal::materialized_size(outputs, s.channels * s.kernel[0] * s.kernel[1], s.groups)));
    Filled<T> stepped(s.samples, outputs, h2, w2, s.channels_last, 6);
    saal::tile_norm<T>(a.read(), g.read(), layer, {map, q}, threads, "", second_norms.data(),
                       materialized.data());
    saal::apply_materialized<T>(materialized.data(), x.read(), layer, {map, q}, scales.numbers.data(),
                                threads, "", stepped.images);

    double worst = 0.0;
    const auto compare = [&](double got, double expected) {
        const double error = std::fabs(got - expected) / (1.0 + std::fabs(expected));
        worst = error <= worst ? worst : error;  // NaN counts
        if (std::isnan(error)) worst = INFINITY;
    };
    for (std::int64_t n = 0; n < s.samples; ++n) {
        double norm = 0.0;
        std::vector<double> expected(static_cast<std::size_t>(outputs * h2 * w2), 0.0);
        std::vector<double> layer_alone(expected.size(), 0.0);
        for (std::int64_t o = 0; o < outputs; ++o)
            for (std::int64_t c = 0; c < s.channels; ++c)
                for (std::int64_t i = 0; i < s.kernel[0]; ++i)
                    for (std::int64_t j = 0; j < s.kernel[1]; ++j) {
                        const std::int64_t from = o / s.outputs * s.channels + c;
                        const auto pixel = [&](const Filled<T>& images, std::int64_t y, std::int64_t z) {
                            return images.at(n, from, y * s.stride[0] + i * s.dilation[0] - s.before[0],
                                             z * s.stride[1] + j * s.dilation[1] - s.before[1]);
                        };
                        double m = 0.0;
                        for (std::int64_t y = 0; y < h; ++y)
                            for (std::int64_t z = 0; z < w; ++z) m += g.at(n, o, y, z) * pixel(a, y, z);
                        const double weighed = map == Map::kAdaptive ? weight.at(o, c, i, j) : 1.0;
                        const double exponent = map == Map::kAbsolute ? 1.0 : map == Map::kPower ? q : 2.0;
                        norm += power(weighed * m, exponent);
                        const double step = weighed * weighed * std::copysign(power(m, exponent - 1.0), m);
                        for (std::int64_t y = 0; y < h2; ++y)
                            for (std::int64_t z = 0; z < w2; ++z) {
                                const auto to = static_cast<std::size_t>((o * h2 + y) * w2 + z);
                                layer_alone[to] += weight.at(o, c, i, j) * pixel(x, y, z);
                                if (m != 0.0) expected[to] += step * pixel(x, y, z);
                            }
                    }
        compare(static_cast<double>(norms[static_cast<std::size_t>(n)]), norm);
        compare(static_cast<double>(second_norms[static_cast<std::size_t>(n)]), norm);
        const double scale = scales.at(n, 0, 0, 0);
        for (std::int64_t o = 0; o < outputs; ++o)
            for (std::int64_t y = 0; y < h2; ++y)
                for (std::int64_t z = 0; z < w2; ++z) {
                    const auto from = static_cast<std::size_t>((o * h2 + y) * w2 + z);
                    const double moved = layer_alone[from] + scale * expected[from];
                    compare(out.at(n, o, y, z), moved);
                    compare(stepped.at(n, o, y, z), moved);
                }
    }
    return worst < (sizeof(T) == 4 ? 2e-3 : 1e-9);  // sums may cancel
}

/// A convolution by minimal filtering, and its way back.
template <class T>
bool winograd_right(std::int64_t samples, std::int64_t channels, std::int64_t outputs, std::int64_t height,
                    std::int64_t width, std::int64_t before, int threads) {
    const std::int64_t h = height + before - 1, w = width + 2 * before - 2;  // one row of zeros below
    const Filled<T> x(samples, channels, height, width, true, 1);
    const Filled<T> g(samples, outputs, h, w, true, 2);
    const Filled<T> weight(outputs, channels, 3, 3, false, 3);
    Filled<T> out(samples, outputs, h, w, true, 4), back(samples, channels, height, width, true, 5);
    saal::Convolution<T> layer{weight.numbers.data(), {3, 3}, {1, 1}, {before, before}, {1, 1}, 1};
    saal::winograd_conv<T>(x.read(), layer, false, threads, "", out.images);
    layer.before[0] = layer.before[1] = 2 - before;
    saal::winograd_conv<T>(g.read(), layer, true, threads, "", back.images);
    double worst = 0.0;
    const auto compare = [&](double got, double expected) {
        const double error = std::fabs(got - expected);
        worst = error <= worst ? worst : error;  // NaN counts
        if (std::isnan(error)) worst = INFINITY;
    };
    for (std::int64_t n = 0; n < samples; ++n) {
        for (std::int64_t o = 0; o < outputs; ++o)
            for (std::int64_t y = 0; y < h; ++y)
                for (std::int64_t z = 0; z < w; ++z) {
                    double sum = 0.0;
                    for (std::int64_t c = 0; c < channels; ++c)
                        for (std::int64_t tap = 0; tap < 9; ++tap)
                            sum += weight.at(o, c, tap / 3, tap % 3) *
                                   x.at(n, c, y + tap / 3 - before, z + tap % 3 - before);
                    compare(out.at(n, o, y, z), sum);
                }
        for (std::int64_t c = 0; c < channels; ++c)
            for (std::int64_t y = 0; y < height; ++y)
                for (std::int64_t z = 0; z < width; ++z) {
                    double sum = 0.0;
                    for (std::int64_t o = 0; o < outputs; ++o)
                        for (std::int64_t tap = 0; tap < 9; ++tap)
                            sum += weight.at(o, c, tap / 3, tap % 3) *
                                   g.at(n, o, y - tap / 3 + before, z - tap % 3 + before);
                    compare(back.at(n, c, y, z), sum);
                }
    }
    return worst < (sizeof(T) == 4 ? 1e-2 : 1e-10);
}

}  // namespace

int main() {
    const Shape shapes[] = {
        {1, 1, 1, 1, 1, 1, 0, {1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, false},
        {3, 5, 7, 1, 6, 5, 1, {3, 2}, {1, 1}, {1, 0}, {1, 1}, {1, 1}, false},
        {3, 3, 5, 2, 7, 9, 2, {3, 3}, {2, 3}, {0, 2}, {1, 0}, {2, 1}, true},
        {2, 8, 20, 3, 5, 5, 0, {1, 1}, {2, 1}, {0, 0}, {0, 0}, {1, 1}, false},
        {2, 16, 9, 1, 1, 13, 3, {1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, true},
        {2, 1, 1, 6, 8, 8, 0, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, false},
        {5, 24, 40, 1, 6, 6, 1, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, false},  // several threads
        {1, 24, 100, 1, 9, 9, 0, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, false},
        {3, 16, 48, 1, 7, 8, 1, {3, 3}, {1, 1}, {1, 0}, {1, 2}, {1, 1}, true},  // by minimal filtering
        {1, 16, 16, 1, 19, 17, 0, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, true},
    };
    int wrong = 0;
    for (const Shape& shape : shapes)
        for (const Map map : {Map::kSquare, Map::kAdaptive, Map::kAbsolute, Map::kPower})
            for (const int threads : {1, 3})
                for (const bool is_double : {false, true}) {
                    const bool ok = is_double ? right<double>(shape, map, 1.5, threads)
                                              : right<float>(shape, map, 1.5, threads);
                    if (ok) continue;
                    ++wrong;
                    std::printf("wrong: shape %d, map %d, %d threads, %s\n",
                                static_cast<int>(&shape - shapes), static_cast<int>(map), threads,
                                is_double ? "double" : "float");
                }
    for (const int threads : {1, 3})
        for (const std::int64_t before : {0, 1, 2}) {
            const bool ok = winograd_right<float>(2, 16, 48, 5, 4, before, threads) &&
                            winograd_right<double>(3, 48, 16, 20, 19, before, threads);
            if (!ok)
                std::printf("wrong: winograd, %d threads, padding %d\n", threads, static_cast<int>(before));
            wrong += !ok;
        }
    return wrong;
}
