// saal_fast._core: arrays in, rows out. The interpreter's lock is released while the core computes.
#include "bindings.h"
#include "heap.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings_common.h"
#include "build_info.h"
#include "kmeans.h"

namespace py = pybind11;

namespace {

template <class T>
saal::Matrix<T> as_matrix(const py::array_t<T, 0>& x) {
    constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
    if (x.ndim() != 2)
        throw std::invalid_argument("expected x of 2 dimensions, got " + std::to_string(x.ndim()));
    if ((x.shape(1) > 1 && x.strides(1) != size) || x.strides(0) % size != 0)
        throw std::invalid_argument(
            "expected x with its columns next to each other in memory, got strides (" +
            std::to_string(x.strides(0)) + ", " + std::to_string(x.strides(1)) + ") bytes");
    return {x.data(), x.shape(0), x.shape(1), x.strides(0) / size};
}

template <class T>
py::array_t<std::int64_t> kmeans_plusplus(const py::array_t<T, 0>& x, std::int64_t k,
                                          const std::string& first, const std::vector<double>& uniforms,
                                          int threads, const std::string& isa) {
    const auto matrix = as_matrix(x);
    const auto how = saal::parse_first(first);
    std::vector<std::int64_t> rows;
    {
        const py::gil_scoped_release release;
        rows = saal::kmeans_plusplus(matrix, k, how, uniforms, threads, saal::signal_check(), isa);
    }
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(rows.size()), rows.data());
}

template <class T>
void define(py::module_& m) {
    m.def("kmeans_plusplus", &kmeans_plusplus<T>, py::arg("x").noconvert(), py::arg("k"), py::arg("first"),
          py::arg("uniforms"), py::arg("threads") = 1, py::arg("isa") = "",
          "The rows that k-means++ draws from x [N, D], one for each of k uniforms.");
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "The C++ core of saal_fast.";
    define<float>(m);
    define<double>(m);
    define_diagonal_sums(m);
    define_tiles(m);
    m.def("built_isas", &saal::built_isas, "Instruction sets compiled in, the fastest last.");
    m.def("usable_isas", &saal::usable_isas, "Those of them that this CPU runs, the fastest last.");
    m.def("keep_freed_memory", &saal::keep_freed_memory, py::arg("keep"),
          "Whether freed memory is kept for the next allocation, or given back to the system.");
    m.attr("compiler") = SAAL_BUILD_COMPILER;
    m.attr("flags") = SAAL_BUILD_FLAGS;
    m.attr("cuda") = SAAL_BUILD_CUDA;
}
