// Depthwise convolutions for Python: contiguous arrays in, results written into arrays.
#include "conv/depthwise.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "bindings/define.h"

namespace py = pybind11;

namespace {

using Pair = std::array<std::int64_t, 2>;

template <class T>
using Array = py::array_t<T, 0>;

template <class T>
void check_array(const Array<T>& array, const char* name, std::array<std::int64_t, 4> shape) {
    bool fits = array.ndim() == 4 && (array.flags() & py::array::c_style) &&
                reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0;
    for (int i = 0; fits && i < 4; ++i) fits = array.shape(i) == shape[static_cast<std::size_t>(i)];
    if (!fits)
        throw std::invalid_argument(std::string("expected ") + name +
                                    " contiguous, aligned to its elements, of the layer's shape");
}

/// The layer of images x [N, H, W, C] and outputs [N, H', W', C], with weights [N, *kernel, C].
template <class T>
saal::Depthwise layer_of(const Array<T>& x, const Array<T>& out, const Array<T>& weight, const Pair& stride,
                         const Pair& before, const Pair& dilation) {
    if (x.ndim() != 4 || out.ndim() != 4 || weight.ndim() != 4)
        throw std::invalid_argument("expected arrays of 4 dimensions");
    const std::int64_t count = x.shape(0), channels = x.shape(3);
    check_array(x, "x", {count, x.shape(1), x.shape(2), channels});
    check_array(out, "outputs", {count, out.shape(1), out.shape(2), channels});
    check_array(weight, "weights", {count, weight.shape(1), weight.shape(2), channels});
    return {channels,
            x.shape(1),
            x.shape(2),
            out.shape(1),
            out.shape(2),
            {weight.shape(1), weight.shape(2)},
            {stride[0], stride[1]},
            {before[0], before[1]},
            {dilation[0], dilation[1]}};
}

template <class T>
void apply(const Array<T>& x, const Array<T>& weight, Array<T> out, const Pair& stride, const Pair& before,
           const Pair& dilation, int threads, const std::string& isa) {
    const auto layer = layer_of(x, out, weight, stride, before, dilation);
    const T *const from = x.data(), *const by = weight.data();
    T* const to = out.mutable_data();
    const std::int64_t count = x.shape(0);
    const py::gil_scoped_release release;
    saal::depthwise_apply(from, by, count, layer, threads, isa, to);
}

template <class T>
void gradient(const Array<T>& x, const Array<T>& g, Array<T> sums, const Pair& stride, const Pair& before,
              const Pair& dilation, int threads, const std::string& isa) {
    const auto layer = layer_of(x, g, sums, stride, before, dilation);
    const T *const from = x.data(), *const at = g.data();
    T* const to = sums.mutable_data();
    const std::int64_t count = x.shape(0);
    const py::gil_scoped_release release;
    saal::depthwise_gradient(from, at, count, layer, threads, isa, to);
}

template <class T>
void define_as(py::module_& m) {
    m.def("depthwise_apply", &apply<T>, py::arg("x").noconvert(), py::arg("weight").noconvert(),
          py::arg("out").noconvert(), py::arg("stride"), py::arg("before"), py::arg("dilation"),
          py::arg("threads") = 1, py::arg("isa") = "",
          "x [N, H, W, C], weight [N, *kernel, C], out [N, H', W', C].");
    m.def("depthwise_gradient", &gradient<T>, py::arg("x").noconvert(), py::arg("g").noconvert(),
          py::arg("gradient").noconvert(), py::arg("stride"), py::arg("before"), py::arg("dilation"),
          py::arg("threads") = 1, py::arg("isa") = "",
          "x [N, H, W, C], g [N, H', W', C], gradient [N, *kernel, C].");
}

}  // namespace

void define_depthwise(py::module_& m) {
    m.def("depthwise_fits", &saal::depthwise_fits, py::arg("kernel_width"),
          "Whether there are kernels of this width.");
    define_as<float>(m);
    define_as<double>(m);
}
