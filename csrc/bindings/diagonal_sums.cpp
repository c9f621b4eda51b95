// Diagonal sums for Python: addresses and shapes in.
#include "conv/diagonal_sums.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/define.h"

namespace py = pybind11;

namespace {

using Four = std::array<std::int64_t, 4>;
using Pair = std::array<std::int64_t, 2>;

template <class T>
void diagonal_sums(std::uintptr_t pixels, std::uintptr_t out, std::int64_t batch, Four shape, Pair kernel,
                   Pair pad, Pair dilation, int threads, const std::string& isa) {
    const saal::Window window{shape[0],  shape[1], shape[2], shape[3],    kernel[0],
                              kernel[1], pad[0],   pad[1],   dilation[0], dilation[1]};
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
