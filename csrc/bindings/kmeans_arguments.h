// Arguments and results of k-means++, for the bindings of the CPU core and of the CUDA module.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "kmeans/kmeans.h"

namespace saal {

using Doubles = pybind11::array_t<double, pybind11::array::c_style | pybind11::array::forcecast>;

inline First parse_first(const std::string& first) {
    if (first == "random") return First::kRandom;
    if (first == "argmax") return First::kArgmax;
    throw std::invalid_argument("expected first='random' or 'argmax', got '" + first + "'");
}

inline Algorithm parse_algorithm(const std::string& algorithm) {
    if (algorithm == "auto") return Algorithm::kAuto;
    if (algorithm == "plain") return Algorithm::kPlain;
    if (algorithm == "rejection") return Algorithm::kRejection;
    if (algorithm == "sorted") return Algorithm::kSorted;
    throw std::invalid_argument("expected algorithm='auto', 'plain', 'rejection' or 'sorted', got '" +
                                algorithm + "'");
}

/// The address of `rows` weights, which must outlive the search; null for none.
inline const double* parse_weights(const std::optional<Doubles>& weights, std::int64_t rows) {
    if (!weights) return nullptr;
    if (weights->ndim() != 1 || weights->shape(0) != rows)
        throw std::invalid_argument("expected a weight for each of " + std::to_string(rows) + " rows");
    return weights->data();
}

/// (rows, counts)
inline pybind11::tuple as_tuple(const Seeding& seeding) {
    const Info& info = seeding.info;
    return pybind11::make_tuple(pybind11::array_t<std::int64_t>(
                                    static_cast<pybind11::ssize_t>(seeding.rows.size()), seeding.rows.data()),
                                pybind11::make_tuple(info.algorithm, info.potential, info.candidates,
                                                     info.accepted, info.refreshes, info.distances));
}

/// A function to call between centres, without the interpreter's lock, that raises KeyboardInterrupt after
/// Ctrl-C. It looks every 20 ms at most, since waiting for the lock costs up to 5 ms where other threads run
/// Python.
inline std::function<void()> signal_check() {
    using Clock = std::chrono::steady_clock;
    return [last = Clock::now()]() mutable {
        const auto now = Clock::now();
        if (now - last < std::chrono::milliseconds(20)) return;
        last = now;
        const pybind11::gil_scoped_acquire lock;
        if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    };
}

}  // namespace saal
