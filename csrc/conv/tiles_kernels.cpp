// See tiles_kernels.h. CMake compiles this file once per instruction set and names the table by SAAL_ISA.
// Include no header with inline code here: the linker could then choose a copy that only newer CPUs can run.
//
// A block of M, kRows inputs by two vectors of outputs, stays in registers while the positions pass by; then
// it is mapped, and summed or written to a buffer in L1 that the push reads at once.
#include "conv/tiles_kernels.h"

#include "conv/rules.h"
#include "support/vector.h"

#define SAAL_JOIN_(a, b) a##b
#define SAAL_JOIN(a, b) SAAL_JOIN_(a, b)
#define SAAL_TEXT_(a) #a
#define SAAL_TEXT(a) SAAL_TEXT_(a)

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
                        block.rows[r][v] = load<T>(tile.held + at + (r * kVectors + v) * kLanesOf<T>);
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
                sums[v] +=
                    contribution<kMap, T>(block.rows[r][v], weight + (r * kVectors + v) * kLanes, tile.q);
        if (tile.held != nullptr)
            for (int r = 0; r < kRows; ++r)
                for (int v = 0; v < kVectors; ++v)
                    store<T>(tile.held + at + (r * kVectors + v) * kLanes, block.rows[r][v]);
    });
    double total = 0.0;
    for (int v = 0; v < kVectors; ++v)
        for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sums[v][lane]);
    return total;
}

template <Map kMap, bool kFormed, class T, int kVectors>
SAAL_INLINE void step_of(const Tile<T>& tile, T scale, bool whole, T* step) {
    constexpr int kLanes = kLanesOf<T>;
    blocks<kFormed, T, kVectors>(tile, [&](const Block<T, kVectors>& block, std::int64_t first) {
        const T* weight = tile.weight + first;
        SAAL_UNROLL
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) {
                const int at = (r * kVectors + v) * kLanes;
                const Vector<T> base = whole ? load<T>(weight + at) : zero<T>();
                store<T>(step + first + at,
                         base + mapped<kMap, T>(block.rows[r][v], weight + at, tile.q) * scale);
            }
    });
}

template <Map kMap, class T, int kVectors>
void step_by_source(const Tile<T>& tile, T scale, bool whole, T* step) {
    tile.held == nullptr ? step_of<kMap, true, T, kVectors>(tile, scale, whole, step)
                         : step_of<kMap, false, T, kVectors>(tile, scale, whole, step);
}

/// kCount positions of the push, over all strips of a tile.
template <int kCount, class T, int kVectors>
SAAL_INLINE void push_rows(std::int64_t positions, std::int64_t strips, const T* inputs, const T* step,
                           T* push) {
    constexpr int kLanes = kLanesOf<T>;
    Vector<T> sums[kCount][kVectors];
    for (int r = 0; r < kCount; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = load<T>(push + (r * kVectors + v) * kLanes);
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
        for (int v = 0; v < kVectors; ++v) store<T>(push + (r * kVectors + v) * kLanes, sums[r][v]);
}

template <class T, int kVectors>
void push_of(std::int64_t positions, std::int64_t strips, const T* inputs, const T* step, T* push) {
    constexpr int kWidth = kVectors * kLanesOf<T>;
    std::int64_t t = 0;
    for (; t + kRows <= positions; t += kRows)
        push_rows<kRows, T, kVectors>(positions, strips, inputs + t * kStrip, step, push + t * kWidth);
    for (; t + 2 <= positions; t += 2)
        push_rows<2, T, kVectors>(positions, strips, inputs + t * kStrip, step, push + t * kWidth);
    for (; t < positions; ++t)
        push_rows<1, T, kVectors>(positions, strips, inputs + t * kStrip, step, push + t * kWidth);
}

template <class T, int kVectors>
double norm_by_map(const Tile<T>& tile) {
    switch (tile.map) {
        case Map::kSquare:
            return norm_of<Map::kSquare, T, kVectors>(tile);
        case Map::kAdaptive:
            return norm_of<Map::kAdaptive, T, kVectors>(tile);
        case Map::kAbsolute:
            return norm_of<Map::kAbsolute, T, kVectors>(tile);
        default:
            return norm_of<Map::kPower, T, kVectors>(tile);
    }
}

template <class T, int kVectors>
void step_by_map(const Tile<T>& tile, T scale, bool whole, T* step) {
    switch (tile.map) {
        case Map::kSquare:
            return step_by_source<Map::kSquare, T, kVectors>(tile, scale, whole, step);
        case Map::kAdaptive:
            return step_by_source<Map::kAdaptive, T, kVectors>(tile, scale, whole, step);
        case Map::kAbsolute:
            return step_by_source<Map::kAbsolute, T, kVectors>(tile, scale, whole, step);
        default:
            return step_by_source<Map::kPower, T, kVectors>(tile, scale, whole, step);
    }
}

template <class T>
double norm(const Tile<T>& tile) {
    return tile.half ? norm_by_map<T, 1>(tile) : norm_by_map<T, 2>(tile);
}

template <class T>
void step(const Tile<T>& tile, T scale, bool whole, T* step) {
    tile.half ? step_by_map<T, 1>(tile, scale, whole, step) : step_by_map<T, 2>(tile, scale, whole, step);
}

template <class T>
void push(std::int64_t positions, std::int64_t strips, bool half, const T* inputs, const T* step, T* push) {
    half ? push_of<T, 1>(positions, strips, inputs, step, push)
         : push_of<T, 2>(positions, strips, inputs, step, push);
}

template <class T>
constexpr Kernels<T> kKernels{2 * kLanesOf<T>, norm<T>, step<T>, push<T>};

}  // namespace

extern const KernelTable SAAL_JOIN(kernel_table_, SAAL_ISA) = {SAAL_TEXT(SAAL_ISA), kKernels<float>,
                                                               kKernels<double>};

}  // namespace saal
