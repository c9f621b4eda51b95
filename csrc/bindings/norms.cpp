// Normalisation layers for Python: contiguous arrays in, results written into arrays.
#include "norm/norms.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bindings/define.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, 0>;

/// The numbers of a contiguous array; throws where it has another size.
template <class T>
const T* numbers(const Array<T>& array, const char* name, std::int64_t size) {
    if (array.size() != size || !(array.flags() & py::array::c_style))
        throw std::invalid_argument(std::string("expected ") + name + " of " + std::to_string(size) +
                                    " contiguous numbers, got " + std::to_string(array.size()));
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0)
        throw std::invalid_argument(std::string("expected ") + name + " aligned to its elements");
    return array.data();
}

template <class T>
T* room(Array<T>& array, const char* name, std::int64_t size) {
    numbers(array, name, size);
    return array.mutable_data();
}

/// The three sizes of an array; throws where it has other dimensions.
template <class T>
std::array<std::int64_t, 3> sizes_of(const Array<T>& array, const char* name) {
    if (array.ndim() != 3)
        throw std::invalid_argument(std::string("expected ") + name + " of 3 dimensions, got " +
                                    std::to_string(array.ndim()));
    return {array.shape(0), array.shape(1), array.shape(2)};
}

template <class T>
void layer_norm(const Array<T>& x, const Array<T>& weight, const Array<T>& bias, double eps, Array<T> y,
                Array<T> mean, Array<T> rstd, int threads, const std::string& isa) {
    const auto [samples, rows, width] = sizes_of(x, "x");
    const T* const from = numbers(x, "x", x.size());
    const T* const by = numbers(weight, "weight", samples * width);
    const T* const plus = numbers(bias, "bias", samples * width);
    T* const to = room(y, "y", x.size());
    T* const means = room(mean, "mean", samples * rows);
    T* const scales = room(rstd, "rstd", samples * rows);
    const py::gil_scoped_release release;
    saal::layer_norm(from, by, plus, eps, saal::RowSizes{samples, rows, width}, threads, isa, to, means,
                     scales);
}

template <class T>
void layer_norm_back(const Array<T>& x, const Array<T>& g, const Array<T>& weight, const Array<T>& mean,
                     const Array<T>& rstd, Array<T> gx, Array<T> sums, int threads, const std::string& isa) {
    const auto [samples, rows, width] = sizes_of(x, "x");
    const T* const from = numbers(x, "x", x.size());
    const T* const gradients = numbers(g, "g", x.size());
    const T* const by = numbers(weight, "weight", samples * width);
    const T* const means = numbers(mean, "mean", samples * rows);
    const T* const scales = numbers(rstd, "rstd", samples * rows);
    T* const to = room(gx, "gx", x.size());
    T* const totals = room(sums, "sums", 2 * samples * width);
    const py::gil_scoped_release release;
    saal::layer_norm_back(from, gradients, by, means, scales, saal::RowSizes{samples, rows, width}, threads,
                          isa, to, totals);
}

template <class T>
void define_as(py::module_& m) {
    m.def("layer_norm", &layer_norm<T>, py::arg("x").noconvert(), py::arg("weight").noconvert(),
          py::arg("bias").noconvert(), py::arg("eps"), py::arg("y").noconvert(), py::arg("mean").noconvert(),
          py::arg("rstd").noconvert(), py::arg("threads") = 1, py::arg("isa") = "",
          "x, y [N, T, D]; weight, bias [N, D]; mean, rstd [N, T].");
    m.def("layer_norm_back", &layer_norm_back<T>, py::arg("x").noconvert(), py::arg("g").noconvert(),
          py::arg("weight").noconvert(), py::arg("mean").noconvert(), py::arg("rstd").noconvert(),
          py::arg("gx").noconvert(), py::arg("sums").noconvert(), py::arg("threads") = 1, py::arg("isa") = "",
          "x, g, gx [N, T, D]; weight [N, D]; mean, rstd [N, T]; sums [N, 2, D].");
}

}  // namespace

void define_norms(py::module_& m) {
    define_as<float>(m);
    define_as<double>(m);
}
