// k-means++ for Python: arrays in, rows and counts out. The search runs without the interpreter's lock.
#include "kmeans/kmeans.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/define.h"
#include "bindings/kmeans_arguments.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, 0>;
using saal::Doubles;

template <class T>
saal::Matrix<T> as_matrix(const Array<T>& x) {
    constexpr auto size = static_cast<py::ssize_t>(sizeof(T));
    if (x.ndim() != 2)
        throw std::invalid_argument("expected x of 2 dimensions, got " + std::to_string(x.ndim()));
    if ((x.shape(1) > 1 && x.strides(1) != size) || x.strides(0) % size != 0)
        throw std::invalid_argument(
            "expected x with its columns next to each other in memory, got strides (" +
            std::to_string(x.strides(0)) + ", " + std::to_string(x.strides(1)) + ") bytes");
    if (reinterpret_cast<std::uintptr_t>(x.data()) % alignof(T) != 0)
        throw std::invalid_argument("expected x aligned to its elements");
    return {x.data(), x.shape(0), x.shape(1), x.strides(0) / size};
}

template <class T>
py::tuple kmeans_plusplus(const Array<T>& x, std::int64_t k, const std::string& first, std::uint64_t key,
                          const Doubles& given, const std::optional<Array<T>>& left,
                          const std::optional<Doubles>& weights, std::vector<std::int64_t> initial,
                          const std::string& algorithm, int threads, const std::string& isa,
                          std::int64_t refresh_every, bool potential) {
    saal::Rows<T> rows{as_matrix(x), {nullptr, x.shape(0), 0, 0}, nullptr};
    if (given.ndim() != 1) throw std::invalid_argument("expected uniforms of 1 dimension");
    if (left) rows.left = as_matrix(*left);
    if (left && rows.left.dim == 0)
        throw std::invalid_argument("expected a pair of at least one column each, got none in the first");
    saal::Options options;
    options.k = k;
    options.first = saal::parse_first(first);
    options.algorithm = saal::parse_algorithm(algorithm);
    options.weights = saal::parse_weights(weights, rows.count());
    options.initial = std::move(initial);
    options.uniforms = {key, given.data(), given.size()};
    options.threads = threads;
    options.isa = isa;
    options.refresh_every = refresh_every;
    options.potential = potential;
    options.between = saal::signal_check();
    saal::Seeding seeding;
    {
        const py::gil_scoped_release release;
        seeding = saal::kmeans_plusplus(rows, options);
    }
    return saal::as_tuple(seeding);
}

template <class T>
void define_as(py::module_& m) {
    m.def("kmeans_plusplus", &kmeans_plusplus<T>, py::arg("x").noconvert(), py::arg("k"), py::arg("first"),
          py::arg("key"), py::arg("given"), py::arg("left").noconvert() = py::none(),
          py::arg("weights") = py::none(), py::arg("initial") = std::vector<std::int64_t>{},
          py::arg("algorithm") = "auto", py::arg("threads") = 1, py::arg("isa") = "",
          py::arg("refresh_every") = -1, py::arg("potential") = false,
          "The rows that k-means++ draws from x [N, D], and (algorithm, potential, candidates, accepted, "
          "refreshes, distances). Takes the given uniforms, then hashes of the key.");
}

}  // namespace

void define_kmeans(py::module_& m) {
    define_as<float>(m);
    define_as<double>(m);
    m.def(
        "choose_algorithm",
        [](std::int64_t rows, std::int64_t width, std::int64_t k, bool factored) {
            if (rows < 1 || width < 1 || k < 1)
                throw std::invalid_argument("expected rows, width and k >= 1, got " + std::to_string(rows) +
                                            ", " + std::to_string(width) + " and " + std::to_string(k));
            switch (saal::choose_algorithm(rows, width, k, factored)) {
                case saal::Algorithm::kPlain:
                    return "plain";
                case saal::Algorithm::kSorted:
                    return "sorted";
                default:
                    return "rejection";
            }
        },
        py::arg("rows"), py::arg("width"), py::arg("k"), py::arg("factored"),
        "The algorithm that 'auto' chooses for rows of `width` numbers.");
    m.def("built_isas", &saal::built_isas, "The instruction sets that are compiled in, the fastest last.");
    m.def("usable_isas", &saal::usable_isas, "Those of them that this CPU runs, the fastest last.");
}
