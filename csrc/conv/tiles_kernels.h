// The inner loops over tiles of a sample's weight gradient M = G Aᵀ. Compiled once per instruction set
// (tiles_kernels.cpp), chosen at run time (tiles.cpp).
//
// The kernels read packed arrays, so that every load follows the one before:
//   strips of kStrip inputs   [D / kStrip, T, kStrip]   A, and likewise X' (D rounded up, zeros beyond)
//   panels of outputs         [T, width]                G; W as [D, width]; a sample's outputs as [T', width]
// where width is a panel's: `TileKernels::width`, or half of it for a last panel with few outputs left.
#pragma once

#include <cstdint>

#include "support/isa_tables.h"

namespace saal {

constexpr std::int64_t kStrip = 8;

/// A gradient m of a weight w adds φ to the norm, and moves the weight along δ.
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
    const T* weight;   // W [strips * kStrip, width]; read by kAdaptive, and by a step that includes it
    T* materialized;   // M [strips * kStrip, width], which `norm` writes and `step` reads; null: neither
    Map map;
    double q;
    bool half;  // the panel is half as wide
};

/// The kernels of one instruction set for one type.
template <class T>
struct TileKernels {
    std::int64_t width;
    /// Σ φ(M) over a tile.
    double (*norm)(const Tile<T>& tile);
    /// step [strips * kStrip, width] = scale δ(M) of a tile, with W added where `include_weight`.
    void (*step)(const Tile<T>& tile, T scale, bool include_weight, T* step);
    /// outputs [positions, width] += X'ᵀ step, with X' [strips, positions, kStrip] and `step` of the function
    /// above.
    void (*multiply)(std::int64_t positions, std::int64_t strips, bool half, const T* inputs, const T* step,
                     T* outputs);
};

struct TileTable {
    const char* isa;
    TileKernels<float> f32;
    TileKernels<double> f64;
};

SAAL_DECLARE_TABLES(TileTable, tile_table);

}  // namespace saal
