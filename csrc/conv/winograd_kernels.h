// The transforms of 3×3 convolutions by minimal filtering F(2×2, 3×3) (Winograd; Lavin & Gray,
// arXiv:1509.09308): 16 multiplications do for the 36 of a tile of 2×2 outputs,
//
//     Y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ d B)] A        d: the tile's 4×4 window of inputs, summed over channels inside [
//     ]
//
// and by its adjoint a weight's gradient is Gᵀ [Σ_tiles (A dY Aᵀ) ⊙ (Bᵀ d B)] G. The sums are products of
// matrices, one for each of the 16 places, and the kernels of tiles_kernels.h do them; the layouts are
// theirs:
//
//     inputs    16 × [channels / kStrip, tiles, kStrip]
//     weights   16 × [channels, width]       plain: 9 × [channels, width], as a tile of M is kept
//     outputs   16 × [tiles, width]
//
// `place` is the step from one of the 16 (or 9) to the next. Compiled once per instruction set.
#pragma once

#include <cstdint>

#include "conv/tiles_kernels.h"

namespace saal {

/// A panel of a weight, or of its gradient: 9 × [channels, width], plain.
template <class T>
struct Filters {
    std::int64_t channels;
    bool half;        // the panel is half as wide
    const T* weight;  // W
    T* held;          // M: read by a step, kept by a norm; null: none
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
    /// G w Gᵀ of W, or of W + scale δ(M) where there is an M.
    void (*weights)(const Filters<T>& filters, T scale, std::int64_t place, T* to);
    /// Aᵀ m A of one tile, one panel of it, to 2×2 pixels; null: no such pixel.
    void (*outputs)(const T* from, bool half, std::int64_t place, T* const* pixels);
    /// M = Gᵀ m G, kept where there is room for it; Σ φ(M).
    double (*norm)(const T* from, std::int64_t place, const Filters<T>& filters);
};

struct WinogradTable {
    const char* isa;
    WinogradKernels<float> f32;
    WinogradKernels<double> f64;
};

extern const WinogradTable winograd_table_baseline;
extern const WinogradTable winograd_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const WinogradTable winograd_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
