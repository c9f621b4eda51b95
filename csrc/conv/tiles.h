// Per-sample weight gradients M = G Aᵀ of linear and convolutional layers, mapped element by element (see
// Map): their norms, and the layer's outputs once each sample's weight has moved along its own. M is formed
// in tiles and never stored, unless the caller asks for it.
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

/// A convolution with weight [outputs, channels / groups, kernel, kernel]. Pairs are down, across. `before`
/// counts the zeros above and to the left; the output's size says how many follow below and to the right.
template <class T>
struct Convolution {
    const T* weight;  // contiguous; read by Map::kAdaptive, and by a step
    std::int64_t kernel[2], stride[2], before[2], dilation[2], groups;
};

struct Rule {
    Map map;
    double q;  // for kPower
};

/// How many numbers one sample's materialized weight gradient takes. It lies in the order of the tiles, with
/// outputs and inputs rounded up to the panels and strips of any instruction set. Throws
/// std::invalid_argument for numbers that are none of a layer's.
std::int64_t materialized_size(std::int64_t outputs, std::int64_t inputs, std::int64_t groups);

/// norms[n] = Σ φ(M_n, W), with M_n the weight gradient of input a[n] and output gradient g[n]. Writes every
/// M_n to `materialized` [count, materialized_size], unless that is null.
///
/// The numbers do not depend on `threads`. `isa` is one of `usable_isas()`, empty for the fastest.
/// Throws std::invalid_argument where shapes do not fit each other.
template <class T>
void tile_norm(const Images<const T>& a, const Images<const T>& g, const Convolution<T>& layer,
               const Rule& rule, int threads, const std::string& isa, T* norms, T* materialized = nullptr);

/// out[n] = the layer with the weight W + scales[n] δ(M_n, W), applied to x[n].
template <class T>
void tile_apply(const Images<const T>& a, const Images<const T>& g, const Images<const T>& x,
                const Convolution<T>& layer, const Rule& rule, const T* scales, int threads,
                const std::string& isa, const Images<T>& out);

/// The same, from gradients that `tile_norm` wrote with the same `isa`.
template <class T>
void apply_materialized(const T* materialized, const Images<const T>& x, const Convolution<T>& layer,
                        const Rule& rule, const T* scales, int threads, const std::string& isa,
                        const Images<T>& out);

}  // namespace saal
