// The inner loops over tiles of a sample's weight gradient M = G Aᵀ. Compiled once per instruction set
// (tiles_kernels.cpp), chosen at run time (tiles.cpp).
//
// What the kernels read is packed, so that every load is next to the one before:
//   strips of kStrip inputs   [D / kStrip, T, kStrip]   A, and likewise X' (D rounded up, zeros beyond)
//   panels of outputs         [T, width]                G; W as [D, width]; a sample's push as [T', width]
// where width is a panel's: `Kernels::width`, or half of it for a last panel with few outputs left.
#pragma once

#include <cstdint>

namespace saal {

constexpr std::int64_t kStrip = 8;

/// How a gradient m of a weight w counts.
enum class Map {
    kSquare,    // φ = m²         δ = m
    kAdaptive,  // φ = (w m)²     δ = w² m
    kAbsolute,  // φ = |m|        δ = sign(m)
    kPower,     // φ = |m|^q      δ = sign(m) |m|^(q-1)
};

/// A tile of M: `strips * kStrip` inputs by one panel of outputs.
template <class T>
struct Tile {
    std::int64_t positions;  // T
    std::int64_t strips;
    const T* inputs;   // A [strips, positions, kStrip]
    const T* outputs;  // G [positions, width]
    const T* weight;   // W [strips * kStrip, width]; read by kAdaptive, and for a whole step
    T* held;  // M [strips * kStrip, width]: kept by a norm, read by a step; null: not kept, formed anew
    Map map;
    double q;
    bool half;  // the panel is half as wide
};

/// The kernels of one instruction set for one type.
template <class T>
struct Kernels {
    std::int64_t width;
    /// Σ φ(M) over a tile.
    double (*norm)(const Tile<T>& tile);
    /// scale δ(M) of a tile, [strips * kStrip, width]; where it is to be whole, W + scale δ(M).
    void (*step)(const Tile<T>& tile, T scale, bool whole, T* step);
    /// push [positions, width] += X'ᵀ E, with X' [strips, positions, kStrip] and E as `step` wrote it.
    void (*push)(std::int64_t positions, std::int64_t strips, bool half, const T* inputs, const T* step,
                 T* push);
};

struct KernelTable {
    const char* isa;
    Kernels<float> f32;
    Kernels<double> f64;
};

extern const KernelTable kernel_table_baseline;
extern const KernelTable kernel_table_avx2;    // linked only where built: SAAL_HAVE_AVX2
extern const KernelTable kernel_table_avx512;  // SAAL_HAVE_AVX512

}  // namespace saal
