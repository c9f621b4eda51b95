// Normalisation layers with a scale and a shift of each sample's own: what plain operations would take
// several passes over the activations for takes one. All arrays are contiguous. `isa` is one of
// `usable_isas()`, empty for the fastest; the numbers do not depend on `threads`.
#pragma once

#include <cstdint>
#include <string>

namespace saal {

/// The sizes of rows [samples, rows, width], normalised along `width`.
struct RowSizes {
    std::int64_t samples, rows, width;
};

/// y = (x - mean) rstd weight + bias, with weight and bias [samples, width], mean and rstd [samples, rows].
template <class T>
void layer_norm(const T* x, const T* weight, const T* bias, double eps, const RowSizes& sizes, int threads,
                const std::string& isa, T* y, T* mean, T* rstd);

/// The way back: gx, and sums [samples, 2, width], the gradients by weight and bias.
template <class T>
void layer_norm_back(const T* x, const T* g, const T* weight, const T* mean, const T* rstd,
                     const RowSizes& sizes, int threads, const std::string& isa, T* gx, T* sums);

}  // namespace saal
