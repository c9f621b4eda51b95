// Per-sample weight gradients M = G Aᵀ of linear and convolutional layers, mapped element by element (see
// Map) without ever being stored: their norms, and what they do to another input. Knows nothing of Python.
#pragma once

#include <cstdint>
#include <string>

#include "conv/tiles_kernels.h"

namespace saal {

/// Images [count, channels, height, width] with strides in elements. A linear layer's rows [N, T, D] are
/// images of D channels, one row and T columns.
template <class T>
struct Images {
    T* data;
    std::int64_t count, channels, height, width;
    std::int64_t count_stride, channel_stride, height_stride, width_stride;
};

/// A convolution's weight [outputs, channels / groups, kernel, kernel] and how it moves; first down, then
/// across. `before` counts the zeros above and to the left; there are as many beyond as the output's size
/// asks.
template <class T>
struct Convolution {
    const T* weight;  // contiguous; read by Map::kAdaptive, and where a step is whole
    std::int64_t kernel[2], stride[2], before[2], dilation[2], groups;
};

struct Rule {
    Map map;
    double q;  // for kPower
};

/// Numbers that a held weight gradient takes, a sample: it is kept in the order in which it is formed and
/// used, outputs and inputs rounded up to whole panels and strips (of any instruction set).
std::int64_t held_size(std::int64_t outputs, std::int64_t inputs, std::int64_t groups);

/// norms[n] = Σ φ(M_n, W), M_n the weight gradient of input a[n] and output gradient g[n]. Where `held` is
/// not null, every M_n is kept there, [count, held_size].
///
/// The numbers do not depend on `threads`. `isa` is one of `usable_isas()`, empty for the fastest.
/// Throws std::invalid_argument where shapes do not fit each other.
template <class T>
void tile_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
               const Rule& rule, int threads, const std::string& isa, T* norms, T* held = nullptr);

/// A step of every sample: scales[n] δ(M_n, W), or where `whole`, W + scales[n] δ(M_n, W).
template <class T>
struct Step {
    const T* scales;
    bool whole;
};

/// out[n] = the layer with sample n's step for its weight, applied to x[n].
template <class T>
void tile_apply(const Images<const T>& a, const Images<const T>& g, const Images<const T>& x,
                const Convolution<T>& layer, const Rule& rule, const Step<T>& step, int threads,
                const std::string& isa, const Images<T>& out);

/// The same, from gradients that `tile_norm` kept, with the same `isa`.
template <class T>
void held_apply(const T* held, const Images<const T>& x, const Convolution<T>& layer, const Rule& rule,
                const Step<T>& step, int threads, const std::string& isa, const Images<T>& out);

}  // namespace saal
