// What the bindings of the CPU core and of the CUDA module share.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>

#include "kmeans.h"

namespace saal {

inline First parse_first(const std::string& first) {
    if (first == "random") return First::kRandom;
    if (first == "argmax") return First::kArgmax;
    throw std::invalid_argument("expected first='random' or 'argmax', got '" + first + "'");
}

/// A function to call between centres, without the interpreter's lock: raises KeyboardInterrupt after Ctrl-C.
/// It looks at most every 20 ms, since waiting for the lock can cost 5 ms where other threads run Python.
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
