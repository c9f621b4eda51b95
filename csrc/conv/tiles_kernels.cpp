// See tiles_kernels.h. CMake compiles this file once per instruction set. Include no header with inline code
// here but those with internal linkage: the linker could choose a copy of it that only newer CPUs can run.
//
// A block of M, kRows inputs by two vectors of outputs, stays in registers while the positions pass by. Then
// it is mapped, and summed or written to a buffer in L1 that `multiply` reads at once.
#include "conv/tiles_kernels.h"

#include "conv/rules.h"
#include "support/vector.h"

namespace saal {
namespace {

/// Rows of a block: as many as leave no register spilled.
constexpr int kRows = kVectorRegisters >= 32 ? 8 : 4;
static_assert(kStrip % kRows == 0, "a strip is whole blocks");

template <class T, int kVectors>
struct Block {
    Vector<T> rows[kRows][kVectors];
};

/// kRows rows of M: Σ_t inputs[t, row] * outputs[t, :].
template <class T, int kVectors>
SAAL_INLINE void form(std::int64_t positions, const T* inputs, const T* outputs, Block<T, kVectors>& block) {
    constexpr int kWidth = kVectors * kLanesOf<T>;
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) block.rows[r][v] = zero<T>();
    for (std::int64_t t = 0; t < positions; ++t) {
        Vector<T> g[kVectors];
        for (int v = 0; v < kVectors; ++v) g[v] = load<T>(outputs + t * kWidth + v * kLanesOf<T>);
        SAAL_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const T a = inputs[t * kStrip + r];
            for (int v = 0; v < kVectors; ++v) block.rows[r][v] += g[v] * a;
        }
    }
}

/// Calls use(block, at) for each block of a tile's rows, `at` being where it begins in [strips * kStrip,
/// width].
template <bool kFormed, class T, int kVectors, class Use>
SAAL_INLINE void blocks(const Tile<T>& tile, const Use& use) {
    constexpr std::int64_t kWidth = kVectors * kLanesOf<T>;
    for (std::int64_t strip = 0; strip < tile.strips; ++strip)
        for (std::int64_t first = 0; first < kStrip; first += kRows) {
            const std::int64_t at = (strip * kStrip + first) * kWidth;
            Block<T, kVectors> block;
            if constexpr (kFormed)
                form(tile.positions, tile.inputs + strip * tile.positions * kStrip + first, tile.outputs,
                     block);
            else
                for (int r = 0; r < kRows; ++r)
                    for (int v = 0; v < kVectors; ++v)
                        block.rows[r][v] = load<T>(tile.materialized + at + (r * kVectors + v) * kLanesOf<T>);
            use(block, at);
        }
}

template <Map kMap, class T, int kVectors>
double norm_of(const Tile<T>& tile) {
    constexpr int kLanes = kLanesOf<T>;
    Vector<T> sums[kVectors];
    for (int v = 0; v < kVectors; ++v) sums[v] = zero<T>();
    blocks<true, T, kVectors>(tile, [&](const Block<T, kVectors>& block, std::int64_t at) {
        const T* weight = tile.weight + at;
        SAAL_UNROLL
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v)
                sums[v] += phi<kMap, T>(block.rows[r][v], weight + (r * kVectors + v) * kLanes, tile.q);
        if (tile.materialized != nullptr)
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kVectors; ++v)
                    store<T>(tile.materialized + at + (r * kVectors + v) * kLanes, block.rows[r][v]);
    });
    double total = 0.0;
    for (int v = 0; v < kVectors; ++v)
        for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sums[v][lane]);
    return total;
}

template <Map kMap, bool kFormed, class T, int kVectors>
SAAL_INLINE void write_step(const Tile<T>& tile, T scale, bool include_weight, T* step) {
    constexpr int kLanes = kLanesOf<T>;
    blocks<kFormed, T, kVectors>(tile, [&](const Block<T, kVectors>& block, std::int64_t first) {
        const T* weight = tile.weight + first;
        SAAL_UNROLL
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) {
                const int at = (r * kVectors + v) * kLanes;
                const Vector<T> base = include_weight ? load<T>(weight + at) : zero<T>();
                store<T>(step + first + at,
                         base + delta<kMap, T>(block.rows[r][v], weight + at, tile.q) * scale);
            }
    });
}

/// kCount positions of the outputs, over all strips of a tile.
template <int kCount, class T, int kVectors>
SAAL_INLINE void multiply_rows(std::int64_t positions, std::int64_t strips, const T* inputs, const T* step,
                               T* outputs) {
    constexpr int kLanes = kLanesOf<T>;
    Vector<T> sums[kCount][kVectors];
    for (int r = 0; r < kCount; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = load<T>(outputs + (r * kVectors + v) * kLanes);
    for (std::int64_t strip = 0; strip < strips; ++strip) {
        const T* x = inputs + strip * positions * kStrip;
        SAAL_UNROLL
        for (int d = 0; d < kStrip; ++d) {
            Vector<T> row[kVectors];
            for (int v = 0; v < kVectors; ++v) row[v] = load<T>(step + v * kLanes);
            step += kVectors * kLanes;
            SAAL_UNROLL
            for (int r = 0; r < kCount; ++r)
                for (int v = 0; v < kVectors; ++v) sums[r][v] += row[v] * x[r * kStrip + d];
        }
    }
    for (int r = 0; r < kCount; ++r)
        for (int v = 0; v < kVectors; ++v) store<T>(outputs + (r * kVectors + v) * kLanes, sums[r][v]);
}

template <class T, int kVectors>
void multiply_panel(std::int64_t positions, std::int64_t strips, const T* inputs, const T* step, T* outputs) {
    constexpr int kWidth = kVectors * kLanesOf<T>;
    std::int64_t t = 0;
    for (; t + kRows <= positions; t += kRows)
        multiply_rows<kRows, T, kVectors>(positions, strips, inputs + t * kStrip, step, outputs + t * kWidth);
    for (; t + 2 <= positions; t += 2)
        multiply_rows<2, T, kVectors>(positions, strips, inputs + t * kStrip, step, outputs + t * kWidth);
    for (; t < positions; ++t)
        multiply_rows<1, T, kVectors>(positions, strips, inputs + t * kStrip, step, outputs + t * kWidth);
}

template <class T>
double norm(const Tile<T>& tile) {
    return by_map(tile.map, [&](auto map) {
        return tile.half ? norm_of<map.value, T, 1>(tile) : norm_of<map.value, T, 2>(tile);
    });
}

template <class T, int kVectors>
void step_of(const Tile<T>& tile, T scale, bool include_weight, T* step) {
    by_map(tile.map, [&](auto map) {
        tile.materialized == nullptr
            ? write_step<map.value, true, T, kVectors>(tile, scale, include_weight, step)
            : write_step<map.value, false, T, kVectors>(tile, scale, include_weight, step);
    });
}

template <class T>
void step(const Tile<T>& tile, T scale, bool include_weight, T* step) {
    tile.half ? step_of<T, 1>(tile, scale, include_weight, step)
              : step_of<T, 2>(tile, scale, include_weight, step);
}

template <class T>
void multiply(std::int64_t positions, std::int64_t strips, bool half, const T* inputs, const T* step,
              T* outputs) {
    half ? multiply_panel<T, 1>(positions, strips, inputs, step, outputs)
         : multiply_panel<T, 2>(positions, strips, inputs, step, outputs);
}

template <class T>
constexpr TileKernels<T> kKernels{2 * kLanesOf<T>, norm<T>, step<T>, multiply<T>};

}  // namespace

SAAL_DEFINE_TABLE(TileTable, tile_table, kKernels<float>, kKernels<double>);

}  // namespace saal
