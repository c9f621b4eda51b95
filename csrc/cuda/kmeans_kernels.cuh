// The kernels of plain k-means++ passes. No CUDA header is included and no launch is written here, so that
// the tests compile the same text with a host compiler and run it on std::threads
// (tests/csrc/cuda_on_host.h).
//
// Sixteen threads work on a row: thread l is lane l of the lane sum in kmeans_policy.h, and a shuffle over
// distances 8, 4, 2, 1 folds the lanes as the host does. The weights never leave the device.
#pragma once

#include <cstdint>

#include "../kmeans_policy.h"

namespace saal {

constexpr int kThreads = kFan;                // one thread a row when a block's weights are written
constexpr int kTeams = kThreads / kLanes;     // teams of kLanes threads in a thread block
constexpr unsigned kWholeWarp = 0xffffffffu;  // shuffle masks
constexpr unsigned kFirstTeam = 0x0000ffffu;

/// The matrix and the workspace, all on the device.
template <class T>
struct Problem {
    const T* x;               // [rows, dim]
    std::int64_t rows;        // N
    std::int64_t dim;         // D
    std::int64_t row_stride;  // in elements
    const double* uniforms;   // [k]
    std::int64_t* chosen;     // [k]
    double* weights;          // [N]
    double* block_sums;       // [blocks]
    double* group_sums;       // [groups]

    SAAL_HOST_DEVICE std::int64_t blocks() const { return parts(rows, kFan); }
    SAAL_HOST_DEVICE std::int64_t groups() const { return parts(blocks(), kFan); }
};

/// The sum over a team's lanes, in every one of its threads.
__device__ inline double fold_team(unsigned mask, double lane) {
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        lane += __shfl_xor_sync(mask, lane, distance, kLanes);
    return lane;
}

/// weights[i] <- ‖x_i − centre‖², or the least of that and weights[i], and each block's sum; a thread block a
/// block of rows. `centre` points to a row's number on the device, null for the origin. After kNoWeightLeft
/// and the like there is no centre, and nothing to do.
template <class T>
__global__ void __launch_bounds__(kThreads)
    distance_kernel(Problem<T> problem, const std::int64_t* centre, bool first) {
    __shared__ double tile[kFan];
    if (centre != nullptr && *centre < 0) return;
    const T* c = centre == nullptr ? nullptr : problem.x + *centre * problem.row_stride;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kLanes;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kFan;

    if (problem.dim == 1) {  // a row is one number: a thread a row
        const std::int64_t i = begin + thread;
        const double shift = c == nullptr ? 0.0 : static_cast<double>(c[0]);
        if (i < problem.rows)
            tile[thread] = add_square(0.0, static_cast<double>(problem.x[i * problem.row_stride]) - shift);
    } else {
        for (int r = thread / kLanes; r < kFan; r += kTeams) {
            const std::int64_t i = begin + r;
            double sum = 0.0;
            if (i < problem.rows) {
                const T* row = problem.x + i * problem.row_stride;
                for (std::int64_t j = lane; j < problem.dim; j += kLanes) {
                    const double shift = c == nullptr ? 0.0 : static_cast<double>(c[j]);
                    sum = add_square(sum, static_cast<double>(row[j]) - shift);
                }
            }
            sum = fold_team(kWholeWarp, sum);
            if (lane == 0) tile[r] = sum;
        }
    }
    __syncthreads();

    const std::int64_t i = begin + thread;
    double weight = 0.0;
    if (i < problem.rows) {
        weight = tile[thread];
        if (!first && problem.weights[i] < weight) weight = problem.weights[i];
        problem.weights[i] = weight;
    }
    tile[thread] = weight;
    __syncthreads();

    if (thread < kLanes) {
        double sum = 0.0;
        for (int r = lane; r < kFan; r += kLanes) sum += tile[r];
        sum = fold_team(kFirstTeam, sum);
        if (lane == 0) problem.block_sums[blockIdx.x] = sum;
    }
}

/// Copies up to kFan values to shared memory, all threads, and lets thread 0 choose among them.
__device__ inline Pick descend_together(const double* values, std::int64_t count, double target, double* tile,
                                        Pick* shared) {
    const int thread = static_cast<int>(threadIdx.x);
    __syncthreads();  // everyone has read *shared
    if (thread < count) tile[thread] = values[thread];
    __syncthreads();
    if (thread == 0) *shared = descend(tile, count, target);
    __syncthreads();
    return *shared;
}

/// chosen[t] <- the row that uniforms[t] aims at, or kNoWeightLeft, or kOverflow; one thread block.
template <class T>
__global__ void __launch_bounds__(kThreads) select_kernel(Problem<T> problem, std::int64_t t) {
    __shared__ double tile[kFan];
    __shared__ Pick shared;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kLanes;
    const int team = thread / kLanes;
    const std::int64_t blocks = problem.blocks();
    const std::int64_t groups = problem.groups();
    if (problem.chosen[t - 1] < 0) {  // no weight since an earlier draw
        if (thread == 0) problem.chosen[t] = problem.chosen[t - 1];
        return;
    }

    for (std::int64_t round = 0; round < groups; round += kTeams) {
        const std::int64_t group = round + team;
        double sum = 0.0;
        if (group < groups)
            for (std::int64_t b = group * kFan + lane; b < (group + 1) * kFan && b < blocks; b += kLanes)
                sum += problem.block_sums[b];
        sum = fold_team(kWholeWarp, sum);
        if (lane == 0 && group < groups) problem.group_sums[group] = sum;
    }
    __syncthreads();

    if (thread == 0) {
        double total = 0.0;
        for (std::int64_t group = 0; group < groups; ++group) total += problem.group_sums[group];
        shared.index = kNoWeightLeft;
        if (!(total - total == 0.0))  // inf or NaN
            shared.index = kOverflow;
        else if (total > 0.0)
            shared = descend(problem.group_sums, groups, problem.uniforms[t] * total);
    }
    __syncthreads();
    Pick pick = shared;
    if (pick.index < 0) {
        if (thread == 0) problem.chosen[t] = pick.index;
        return;
    }
    std::int64_t begin = pick.index * kFan;
    pick = descend_together(problem.block_sums + begin, blocks - begin < kFan ? blocks - begin : kFan,
                            pick.rest, tile, &shared);
    begin = (begin + pick.index) * kFan;
    pick =
        descend_together(problem.weights + begin, problem.rows - begin < kFan ? problem.rows - begin : kFan,
                         pick.rest, tile, &shared);
    if (thread == 0) problem.chosen[t] = begin + pick.index;
}

/// Enqueues draws [from, to), from >= 1; `launch(kernel, thread blocks, arguments...)` starts one kernel.
/// Nothing waits for the device: after a draw fails, the later ones only pass the reason on.
template <class T, class Launch>
void enqueue_draws(const Problem<T>& problem, std::int64_t from, std::int64_t to, const Launch& launch) {
    for (std::int64_t t = from; t < to; ++t) {
        const std::int64_t* centre = problem.chosen + (t - 1);
        launch(distance_kernel<T>, problem.blocks(), problem, centre, t == 1);
        launch(select_kernel<T>, std::int64_t{1}, problem, t);
    }
}

}  // namespace saal
