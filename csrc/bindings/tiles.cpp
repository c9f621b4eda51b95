// Tiles and minimal filtering for Python: arrays in, norms and outputs out.
#include "conv/tiles.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>

#include "bindings/define.h"
#include "conv/checks.h"
#include "conv/winograd.h"

namespace py = pybind11;

namespace {

using saal::Convolution, saal::Images, saal::Map, saal::Rule;

using Pair = std::array<std::int64_t, 2>;
using Window = std::tuple<Pair, Pair, Pair, Pair, std::int64_t>;  // kernel, stride, before, dilation, groups

constexpr std::int64_t kMostZeros = std::int64_t{1} << 31;

template <class T>
using Array = py::array_t<T, 0>;

template <class To>
void check_aligned(const To* data, const char* name) {
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(To) != 0)
        throw std::invalid_argument(std::string("expected ") + name + " aligned to its elements");
}

template <class To, class T>
Images<To> as_images(To* data, const Array<T>& images, const char* name) {
    constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
    if (images.ndim() != 4)
        throw std::invalid_argument(std::string("expected ") + name + " of 4 dimensions, got " +
                                    std::to_string(images.ndim()));
    for (int i = 0; i < 4; ++i)
        if (images.strides(i) % size != 0)
            throw std::invalid_argument(std::string("expected ") + name + " with strides of whole elements");
    check_aligned(data, name);
    return {data,
            images.shape(0),
            images.shape(1),
            images.shape(2),
            images.shape(3),
            images.strides(0) / size,
            images.strides(1) / size,
            images.strides(2) / size,
            images.strides(3) / size};
}

template <class T>
Images<const T> read(const Array<T>& images, const char* name) {
    return as_images(images.data(), images, name);
}

/// `inputs` and `outputs` count channels.
template <class T>
Convolution<T> as_layer(const py::array_t<T, py::array::c_style>& weight, const Window& window,
                        std::int64_t inputs, std::int64_t outputs) {
    const auto& [kernel, stride, before, dilation, groups] = window;
    const Convolution<T> layer{weight.data(),          {kernel[0], kernel[1]},     {stride[0], stride[1]},
                               {before[0], before[1]}, {dilation[0], dilation[1]}, groups};
    saal::check_layer(layer, inputs, outputs);
    const double size = static_cast<double>(outputs) * static_cast<double>(inputs / groups) *
                        static_cast<double>(kernel[0]) * static_cast<double>(kernel[1]);
    if (static_cast<double>(weight.size()) != size)
        throw std::invalid_argument("expected weight [" + std::to_string(outputs) + ", " +
                                    std::to_string(inputs) + " / groups, *kernel], got " +
                                    std::to_string(weight.size()) + " numbers");
    check_aligned(layer.weight, "weight");
    return layer;
}

Rule parse_rule(const std::string& map, double q) {
    if (map == "square") return {Map::kSquare, q};
    if (map == "adaptive") return {Map::kAdaptive, q};
    if (map == "absolute") return {Map::kAbsolute, q};
    if (map == "power") return {Map::kPower, q};
    throw std::invalid_argument("expected map='square', 'adaptive', 'absolute' or 'power', got '" + map +
                                "'");
}

/// The address of materialized gradients; throws where their size is wrong.
template <class T, class To>
To* materialized_data(const Array<T>& given, To* data, std::int64_t count, std::int64_t outputs,
                      const py::array_t<T, py::array::c_style>& weight, std::int64_t groups) {
    const std::int64_t each = saal::materialized_size(outputs, weight.size() / outputs, groups);
    const std::int64_t size = count > 0 && each > INT64_MAX / count ? INT64_MAX : count * each;
    check_aligned(data, "materialized");
    if (given.size() != size || !(given.flags() & py::array::c_style))
        throw std::invalid_argument("expected materialized gradients of " + std::to_string(size) +
                                    " contiguous numbers, got " + std::to_string(given.size()));
    return data;
}

template <class T>
py::array_t<T> norm(const Array<T>& a, const Array<T>& g, const py::array_t<T, py::array::c_style>& weight,
                    const Window& window, const std::string& map, double q, std::optional<Array<T>> given,
                    int threads, const std::string& isa) {
    const auto inputs = read(a, "a");
    const auto gradients = read(g, "g");
    const auto layer = as_layer(weight, window, inputs.channels, gradients.channels);
    const Rule rule = parse_rule(map, q);
    py::array_t<T> norms(static_cast<py::ssize_t>(gradients.count));
    T* const to = norms.mutable_data();
    T* const materialized = given ? materialized_data(*given, given->mutable_data(), gradients.count,
                                                      gradients.channels, weight, layer.groups)
                                  : nullptr;
    {
        const py::gil_scoped_release release;
        saal::tile_norm(inputs, gradients, layer, rule, threads, isa, to, materialized);
    }
    return norms;
}

template <class T>
void apply(const Array<T>& a, const Array<T>& g, const Array<T>& x,
           const py::array_t<T, py::array::c_style>& weight, const py::array_t<T, py::array::c_style>& scales,
           Array<T>& out, const Window& window, const std::string& map, double q, int threads,
           const std::string& isa) {
    const auto inputs = read(a, "a");
    const auto gradients = read(g, "g");
    const auto images = read(x, "x");
    const auto outputs = as_images(out.mutable_data(), out, "out");
    const auto layer = as_layer(weight, window, inputs.channels, gradients.channels);
    const Rule rule = parse_rule(map, q);
    if (scales.size() != gradients.count) throw std::invalid_argument("expected a scale for each sample");
    const T* const by = scales.data();
    const py::gil_scoped_release release;
    saal::tile_apply(inputs, gradients, images, layer, rule, by, threads, isa, outputs);
}

template <class T>
void apply_materialized(const Array<T>& given, const Array<T>& x,
                        const py::array_t<T, py::array::c_style>& weight,
                        const py::array_t<T, py::array::c_style>& scales, Array<T>& out, const Window& window,
                        const std::string& map, double q, int threads, const std::string& isa) {
    const auto images = read(x, "x");
    const auto outputs = as_images(out.mutable_data(), out, "out");
    const auto layer = as_layer(weight, window, images.channels, outputs.channels);
    const Rule rule = parse_rule(map, q);
    if (scales.size() != images.count) throw std::invalid_argument("expected a scale for each sample");
    const T* const materialized =
        materialized_data(given, given.data(), images.count, outputs.channels, weight, layer.groups);
    const T* const by = scales.data();
    const py::gil_scoped_release release;
    saal::apply_materialized(materialized, images, layer, rule, by, threads, isa, outputs);
}

template <class T>
void winograd_conv(const Array<T>& x, const py::array_t<T, py::array::c_style>& weight, Array<T>& out,
                   const Pair& before, bool backward, int threads, const std::string& isa) {
    const auto images = read(x, "x");
    const auto outputs = as_images(out.mutable_data(), out, "out");
    auto layer =
        as_layer(weight, Window{{3, 3}, {1, 1}, {0, 0}, {1, 1}, 1}, images.channels, outputs.channels);
    for (std::size_t side = 0; side < 2;
         ++side) {  // a backward pass may leave out pixels: fewer zeros than none
        if (before[side] < -kMostZeros || before[side] > kMostZeros)
            throw std::invalid_argument("expected zeros before the images in number at most 2^31, got " +
                                        std::to_string(before[side]));
        layer.before[side] = before[side];
    }
    if (!saal::winograd_channels_fit(images.channels, outputs.channels))
        throw std::invalid_argument("expected channels for which winograd_channels_fit is true, got " +
                                    std::to_string(images.channels) + " and " +
                                    std::to_string(outputs.channels));
    if (images.count != outputs.count || !saal::channels_last(images) || !saal::channels_last(outputs))
        throw std::invalid_argument("expected as many images in x as in out, channels side by side");
    const py::gil_scoped_release release;
    saal::winograd_conv(images, layer, backward, threads, isa, outputs);
}

template <class T>
void define(py::module_& m) {
    m.def("winograd_conv", &winograd_conv<T>, py::arg("x").noconvert(), py::arg("weight").noconvert(),
          py::arg("out").noconvert(), py::arg("before"), py::arg("backward") = false, py::arg("threads") = 1,
          py::arg("isa") = "",
          "Fills out with a 3x3 convolution of x; where backward, with the gradient at the inputs, of the "
          "gradient x at the outputs.");
    m.def("tile_norm", &norm<T>, py::arg("a").noconvert(), py::arg("g").noconvert(),
          py::arg("weight").noconvert(), py::arg("window"), py::arg("map"), py::arg("q"),
          py::arg("materialized").noconvert() = py::none(), py::arg("threads") = 1, py::arg("isa") = "",
          "Each sample's norm: the sum over its mapped weight gradient, which is written to `materialized` "
          "where given. Images are [N, C, H, W]; window: kernel, stride, zeros before, dilation, groups.");
    m.def(
        "tile_apply", &apply<T>, py::arg("a").noconvert(), py::arg("g").noconvert(), py::arg("x").noconvert(),
        py::arg("weight").noconvert(), py::arg("scales").noconvert(), py::arg("out").noconvert(),
        py::arg("window"), py::arg("map"), py::arg("q"), py::arg("threads") = 1, py::arg("isa") = "",
        "Fills out with x through the layer that has each sample's scaled and mapped weight gradient for its "
        "weight, plus the weight itself.");
    m.def("apply_materialized", &apply_materialized<T>, py::arg("materialized").noconvert(),
          py::arg("x").noconvert(), py::arg("weight").noconvert(), py::arg("scales").noconvert(),
          py::arg("out").noconvert(), py::arg("window"), py::arg("map"), py::arg("q"), py::arg("threads") = 1,
          py::arg("isa") = "", "As tile_apply, with the gradients that tile_norm wrote to `materialized`.");
}

}  // namespace

void define_tiles(py::module_& m) {
    m.def("materialized_size", &saal::materialized_size, py::arg("outputs"), py::arg("inputs"),
          py::arg("groups"), "How many numbers one sample takes in tile_norm's `materialized`.");
    m.def("winograd_channels_fit", &saal::winograd_channels_fit, py::arg("inputs"), py::arg("outputs"),
          "Whether winograd_conv knows a layer of so many channels.");
    define<float>(m);
    define<double>(m);
}
