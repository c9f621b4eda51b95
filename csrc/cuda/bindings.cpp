// saal_fast._cuda: addresses and a stream in, rows out. Imports without a driver.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../bindings_common.h"
#include "kmeans_cuda.h"

namespace py = pybind11;

namespace {

template <class T>
std::vector<std::int64_t> rows_of(std::uintptr_t x, std::int64_t rows, std::int64_t dim,
                                  std::int64_t row_stride, std::int64_t k, saal::First first,
                                  const std::vector<double>& uniforms, int device, std::uintptr_t stream,
                                  std::uintptr_t workspace) {
    const saal::Matrix<T> matrix{reinterpret_cast<const T*>(x), rows, dim, row_stride};
    const py::gil_scoped_release release;
    return saal::cuda_kmeans_plusplus(matrix, k, first, uniforms, device, stream,
                                      reinterpret_cast<void*>(workspace), saal::signal_check());
}

py::array_t<std::int64_t> kmeans_plusplus(std::uintptr_t x, const std::string& dtype, std::int64_t rows,
                                          std::int64_t dim, std::int64_t row_stride, std::int64_t k,
                                          const std::string& first, const std::vector<double>& uniforms,
                                          int device, std::uintptr_t stream, std::uintptr_t workspace) {
    std::string why;
    if (saal::cuda_device_count(why) == 0) throw std::runtime_error("no CUDA device: " + why);
    if (dtype != "float32" && dtype != "float64")
        throw std::invalid_argument("expected dtype 'float32' or 'float64', got '" + dtype + "'");
    const auto call = dtype == "float32" ? &rows_of<float> : &rows_of<double>;
    const auto chosen =
        call(x, rows, dim, row_stride, k, saal::parse_first(first), uniforms, device, stream, workspace);
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(chosen.size()), chosen.data());
}

py::tuple devices() {
    std::string why;
    const int count = saal::cuda_device_count(why);
    return py::make_tuple(count, why);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
    m.doc() = "The CUDA kernels of saal_fast.";
    m.def("kmeans_plusplus", &kmeans_plusplus, py::kw_only(), py::arg("x"), py::arg("dtype"), py::arg("rows"),
          py::arg("dim"), py::arg("row_stride"), py::arg("k"), py::arg("first"), py::arg("uniforms"),
          py::arg("device"), py::arg("stream"), py::arg("workspace"),
          "The rows that k-means++ draws from the matrix at device address x, one for each of k uniforms.");
    m.def("workspace_bytes", &saal::cuda_workspace_bytes, py::arg("rows"), py::arg("k"),
          "Bytes of device memory that kmeans_plusplus works in.");
    m.def("devices", &devices, "(number of CUDA devices, why there is none or '').");
    m.attr("toolkit") = saal::cuda_toolkit_version();
}
