// saal_fast._core's tiles: arrays in, norms and outputs out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>

#include "bindings.h"
#include "tiles.h"

namespace py = pybind11;

namespace {

using saal::Convolution, saal::Images, saal::Map, saal::Rule;

using Pair = std::array<std::int64_t, 2>;

template <class T>
using Array = py::array_t<T, 0>;

template <class To, class T>
Images<To> as_images(To* data, const Array<T>& images, const char* name) {
    constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
    if (images.ndim() != 4)
        throw std::invalid_argument(std::string("expected ") + name + " of 4 dimensions, got " +
                                    std::to_string(images.ndim()));
    for (int i = 0; i < 4; ++i)
        if (images.strides(i) % size != 0)
            throw std::invalid_argument(std::string("expected ") + name + " with strides of whole elements");
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

template <class T>
Convolution<T> as_layer(const py::array_t<T, py::array::c_style>& weight, const Pair& kernel,
                        const Pair& stride, const Pair& before, const Pair& dilation, std::int64_t groups,
                        const Images<const T>& a, const Images<const T>& g) {
    if (groups < 1 || weight.size() != g.channels * (a.channels / groups) * kernel[0] * kernel[1])
        throw std::invalid_argument("expected weight [" + std::to_string(g.channels) + ", " +
                                    std::to_string(a.channels) + " / groups, *kernel], got " +
                                    std::to_string(weight.size()) + " numbers");
    return {weight.data(),          {kernel[0], kernel[1]},     {stride[0], stride[1]},
            {before[0], before[1]}, {dilation[0], dilation[1]}, groups};
}

Rule parse_rule(const std::string& map, double q) {
    if (map == "square") return {Map::kSquare, q};
    if (map == "adaptive") return {Map::kAdaptive, q};
    if (map == "absolute") return {Map::kAbsolute, q};
    if (map == "power") return {Map::kPower, q};
    throw std::invalid_argument("expected map='square', 'adaptive', 'absolute' or 'power', got '" + map +
                                "'");
}

template <class T>
py::array_t<T> norm(const Array<T>& a, const Array<T>& g, const py::array_t<T, py::array::c_style>& weight,
                    const Pair& kernel, const Pair& stride, const Pair& before, const Pair& dilation,
                    std::int64_t groups, const std::string& map, double q, int threads,
                    const std::string& isa) {
    const auto inputs = read(a, "a");
    const auto gradients = read(g, "g");
    const auto layer = as_layer(weight, kernel, stride, before, dilation, groups, inputs, gradients);
    const Rule rule = parse_rule(map, q);
    py::array_t<T> norms(static_cast<py::ssize_t>(gradients.count));
    T* const to = norms.mutable_data();
    {
        const py::gil_scoped_release release;
        saal::tile_norm(inputs, gradients, layer, rule, threads, isa, to);
    }
    return norms;
}

template <class T>
void apply(const Array<T>& a, const Array<T>& g, const Array<T>& x,
           const py::array_t<T, py::array::c_style>& weight, const py::array_t<T, py::array::c_style>& scales,
           Array<T>& out, const Pair& kernel, const Pair& stride, const Pair& before, const Pair& dilation,
           std::int64_t groups, const std::string& map, double q, int threads, const std::string& isa) {
    const auto inputs = read(a, "a");
    const auto gradients = read(g, "g");
    const auto moved = read(x, "x");
    const auto outputs = as_images(out.mutable_data(), out, "out");
    const auto layer = as_layer(weight, kernel, stride, before, dilation, groups, inputs, gradients);
    const Rule rule = parse_rule(map, q);
    if (scales.size() != gradients.count) throw std::invalid_argument("expected a scale for each sample");
    const T* const by = scales.data();
    const py::gil_scoped_release release;
    saal::tile_apply(inputs, gradients, moved, layer, rule, by, threads, isa, outputs);
}

template <class T>
void define(py::module_& m) {
    m.def("tile_norm", &norm<T>, py::arg("a").noconvert(), py::arg("g").noconvert(),
          py::arg("weight").noconvert(), py::arg("kernel"), py::arg("stride"), py::arg("before"),
          py::arg("dilation"), py::arg("groups"), py::arg("map"), py::arg("q"), py::arg("threads") = 1,
          py::arg("isa") = "", "Each sample's sum over its mapped weight gradient; images are [N, C, H, W].");
    m.def("tile_apply", &apply<T>, py::arg("a").noconvert(), py::arg("g").noconvert(),
          py::arg("x").noconvert(), py::arg("weight").noconvert(), py::arg("scales").noconvert(),
          py::arg("out").noconvert(), py::arg("kernel"), py::arg("stride"), py::arg("before"),
          py::arg("dilation"), py::arg("groups"), py::arg("map"), py::arg("q"), py::arg("threads") = 1,
          py::arg("isa") = "", "Fills out with each sample's layer of mapped weight gradient, applied to x.");
}

}  // namespace

void define_tiles(py::module_& m) {
    define<float>(m);
    define<double>(m);
}
