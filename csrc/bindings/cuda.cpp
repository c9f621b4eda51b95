// saal_fast._native._cuda: addresses and a stream in, rows out. It imports without a driver.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/kmeans_arguments.h"
#include "cuda/kmeans.h"
#include "support/limits.h"

namespace py = pybind11;

namespace {

/// Calls `then` with Rows<float> or Rows<double>.
template <class Then>
auto by_type(const std::string& dtype, std::uintptr_t x, std::int64_t rows, std::int64_t dim,
             std::int64_t row_stride, std::uintptr_t left, std::int64_t left_dim, std::int64_t left_stride,
             const Then& then) {
    const auto typed = [&](auto zero) {
        using T = decltype(zero);
        return then(saal::Rows<T>{
            {reinterpret_cast<const T*>(x), rows, dim, row_stride},           // NOLINT(*int-to-ptr)
            {reinterpret_cast<const T*>(left), rows, left_dim, left_stride},  // NOLINT(*int-to-ptr)
            nullptr});
    };
    if (dtype == "float32") return typed(float{});
    if (dtype == "float64") return typed(double{});
    throw std::invalid_argument("expected dtype 'float32' or 'float64', got '" + dtype + "'");
}

void check_sizes(std::int64_t rows, std::int64_t dim, std::int64_t left_dim, std::int64_t k) {
    if (rows < 1 || dim < 1 || left_dim < 0 || k < 1 || k > rows)
        throw std::invalid_argument("expected rows and dim >= 1, left_dim >= 0 and 1 <= k <= rows");
    if (static_cast<double>(rows) * (static_cast<double>(dim) + static_cast<double>(left_dim)) >
        saal::kMostNumbers)
        throw std::invalid_argument("expected rows that fit memory");
}

py::tuple kmeans_plusplus(std::uintptr_t x, const std::string& dtype, std::int64_t rows, std::int64_t dim,
                          std::int64_t row_stride, std::int64_t k, const std::string& first,
                          std::uint64_t key, std::uintptr_t left, std::int64_t left_dim,
                          std::int64_t left_stride, const std::optional<saal::Doubles>& weights,
                          std::vector<std::int64_t> initial, const std::string& algorithm,
                          std::int64_t refresh_every, bool potential, int device, std::uintptr_t stream,
                          std::uintptr_t workspace) {
    check_sizes(rows, dim, left_dim, k);
    std::string why;
    if (saal::cuda_device_count(why) == 0) throw std::runtime_error("no CUDA device: " + why);
    if (x == 0 || workspace == 0 || (left == 0 && left_dim > 0))
        throw std::invalid_argument(
            "expected addresses of the matrix, of left where left_dim > 0, and of the workspace");
    if (row_stride < 0 || left_stride < 0) throw std::invalid_argument("expected strides of rows >= 0");
    saal::Options options;
    options.k = k;
    options.first = saal::parse_first(first);
    options.algorithm = saal::parse_algorithm(algorithm);
    options.weights = saal::parse_weights(weights, rows);
    options.initial = std::move(initial);
    options.uniforms = {key, nullptr, 0};
    options.refresh_every = refresh_every;
    options.potential = potential;
    options.between = saal::signal_check();
    const saal::Seeding seeding =
        by_type(dtype, x, rows, dim, row_stride, left, left_dim, left_stride, [&](const auto& data) {
            const py::gil_scoped_release release;
            auto* const memory = reinterpret_cast<void*>(workspace);  // NOLINT(*int-to-ptr)
            return saal::cuda_kmeans_plusplus(data, options, device, stream, memory);
        });
    return saal::as_tuple(seeding);
}

std::int64_t workspace_bytes(const std::string& dtype, std::int64_t rows, std::int64_t dim,
                             std::int64_t left_dim, std::int64_t k, std::int64_t initial, bool weighted) {
    check_sizes(rows, dim, left_dim, k);
    return by_type(dtype, 0, rows, dim, 0, 0, left_dim, 0,
                   [&](const auto& data) { return saal::cuda_workspace_bytes(data, k, initial, weighted); });
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
          py::arg("dim"), py::arg("row_stride"), py::arg("k"), py::arg("first"), py::arg("key"),
          py::arg("left") = 0, py::arg("left_dim") = 0, py::arg("left_stride") = 0,
          py::arg("weights") = py::none(), py::arg("initial") = std::vector<std::int64_t>{},
          py::arg("algorithm"), py::arg("refresh_every") = -1, py::arg("potential") = false,
          py::arg("device"), py::arg("stream"), py::arg("workspace"),
          "As _core.kmeans_plusplus, with the matrix at device address x, and at left where left_dim > 0.");
    m.def("workspace_bytes", &workspace_bytes, py::kw_only(), py::arg("dtype"), py::arg("rows"),
          py::arg("dim"), py::arg("left_dim") = 0, py::arg("k"), py::arg("initial") = 0,
          py::arg("weighted") = false, "Bytes of device memory that kmeans_plusplus works in.");
    m.def("devices", &devices, "(number of CUDA devices, why there is none or '').");
    m.attr("toolkit") = saal::cuda_toolkit_version();
}
