// The transforms of 3×3 convolutions by minimal filtering F(2×2, 3×3) (Winograd; Lavin & Gray,
// arXiv:1509.09308): 16 multiplications do for the 36 of a tile of 2×2 outputs,
//
//     Y = Aᵀ [Σ_channels (G w Gᵀ) ⊙ (Bᵀ d B)] A        d: the tile's 4×4 window of inputs
//
// and by its adjoint a weight's gradient is Gᵀ [Σ_tiles (A dY Aᵀ) ⊙ (Bᵀ d B)] G. The sums are matrix
// products, one for each of the 16 places, which the kernels of tiles_kernels.h compute, in their layouts:
//
//     inputs    16 × [channels / kStrip, tiles, kStrip]
//     weights   16 × [channels, width]       before the transform: 9 × [channels, width], as tiles of M
//     outputs   16 × [tiles, width]
//
// `place` is the step from one of the 16 (or 9) to the next. Compiled once per instruction set.
#pragma once

#include <cstdint>

#include "conv/tiles_kernels.h"
#include "support/isa_tables.h"

namespace saal {

/// A panel of a weight and of its gradient, neither transformed: 9 × [channels, width].
template <class T>
struct Filters {
    std::int64_t channels;
    bool half;        // the panel is half as wide
    const T* weight;  // W
    T* materialized;  // M, which `norm` writes and `weights` reads; null: neither
    Map map;
    double q;
};

template <class T>
struct WinogradKernels {
    /// Bᵀ d B of one tile; `window` points at its 16 pixels, whose channels are side by side.
    void (*inputs)(const T* const* window, std::int64_t channels, std::int64_t tiles, std::int64_t place,
                   T* to);
    /// A dY Aᵀ of one tile, one panel of it; `pixels` points at 2×2.
    void (*gradients)(const T* const* pixels, bool half, std::int64_t place, T* to);
    /// G w Gᵀ of W, or of W + scale δ(M) where `materialized` is not null.
    void (*weights)(const Filters<T>& filters, T scale, std::int64_t place, T* to);
    /// Aᵀ m A of one tile, one panel of it, to 2×2 pixels; null: no such pixel.
    void (*outputs)(const T* from, bool half, std::int64_t place, T* const* pixels);
    /// Σ φ(M) of M = Gᵀ m G, which it writes to `materialized`, unless that is null.
    double (*norm)(const T* from, std::int64_t place, const Filters<T>& filters);
};

struct WinogradTable {
    const char* isa;
    WinogradKernels<float> f32;
    WinogradKernels<double> f64;
};

SAAL_DECLARE_TABLES(WinogradTable, winograd_table);

}  // namespace saal
