// Diagonal sums for Python: addresses and shapes in.
#include "conv/diagonal_sums.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "bindings/define.h"
#include "support/limits.h"

namespace py = pybind11;

namespace {

using saal::kMostNumbers;

using Four = std::array<std::int64_t, 4>;
using Pair = std::array<std::int64_t, 2>;

void check_window(std::int64_t batch, const saal::Window& w, double places) {
    const bool sizes = batch >= 0 && w.height >= 0 && w.width >= 0 && w.out_height >= 0 && w.out_width >= 0;
    if (!sizes || w.kernel_y < 1 || w.kernel_x < 1 || w.pad_y < 0 || w.pad_x < 0 || w.dilation_y < 1 ||
        w.dilation_x < 1)
        throw std::invalid_argument("expected batch, sizes and padding >= 0, kernel and dilation > 0");
    const double reach = std::max(static_cast<double>(w.kernel_y) * static_cast<double>(w.dilation_y),
                                  static_cast<double>(w.kernel_x) * static_cast<double>(w.dilation_x));
    const double taps = static_cast<double>(w.kernel_y) * static_cast<double>(w.kernel_x);
    const double zeros = static_cast<double>(std::max(w.pad_y, w.pad_x));
    if (!(static_cast<double>(batch) * places * places < kMostNumbers && taps < kMostNumbers &&
          reach < kMostNumbers && zeros < kMostNumbers && places < kMostNumbers))
        throw std::invalid_argument("expected sizes of arrays that fit memory");
}

template <class T>
void check_address(std::uintptr_t address, const char* name, double numbers) {
    if ((address == 0 && numbers > 0) || address % alignof(T) != 0)
        throw std::invalid_argument(std::string("expected ") + name + " as an array's address, got " +
                                    std::to_string(address));
}

template <class T>
void diagonal_sums(std::uintptr_t pixels, std::uintptr_t out, std::int64_t batch, Four shape, Pair kernel,
                   Pair pad, Pair dilation, int threads, const std::string& isa) {
    const saal::Window window{shape[0],  shape[1], shape[2], shape[3],    kernel[0],
                              kernel[1], pad[0],   pad[1],   dilation[0], dilation[1]};
    const double places = static_cast<double>(shape[0]) * static_cast<double>(shape[1]);
    const double positions = static_cast<double>(shape[2]) * static_cast<double>(shape[3]);
    check_window(batch, window, std::max(places, positions));
    check_address<T>(pixels, "pixels", static_cast<double>(batch) * places);
    check_address<T>(out, "out", static_cast<double>(batch) * positions);
    const py::gil_scoped_release release;
    saal::diagonal_sums(reinterpret_cast<const T*>(pixels), reinterpret_cast<T*>(out), batch, window, threads,
                        isa);
}

template <class T>
void define_as(py::module_& m, const char* name) {
    m.def(name, &diagonal_sums<T>, py::arg("pixels"), py::arg("out"), py::arg("batch"), py::arg("shape"),
          py::arg("kernel"), py::arg("pad"), py::arg("dilation"), py::arg("threads"), py::arg("isa") = "",
          "Sums along the diagonals of [batch, S, S] at address `pixels` into [batch, T, T] at `out`; "
          "shape: height, width, out_height, out_width.");
}

}  // namespace

void define_diagonal_sums(py::module_& m) {
    define_as<float>(m, "diagonal_sums_f32");
    define_as<double>(m, "diagonal_sums_f64");
}
