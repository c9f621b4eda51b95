// The parts that the kernels of k-means++ share: the data, the workspace, and the functions of a team of
// threads.
//
// The .cuh files include no CUDA header and launch nothing, so that the tests can compile them with a host
// compiler and run them on std::threads (tests/csrc/cuda_on_host.h).
//
// Sixteen threads, a team, work on a row. Thread l is lane l of a lane sum (kmeans/policy.h); a shuffle over
// distances 8, 4, 2, 1 folds the lanes as the host does. With -fmad=false, nvcc fuses a product into an
// addition only for fmaf.
#pragma once

#include <cstdint>
#include <limits>

#include "kmeans/policy.h"

#if !defined(SAAL_CANDIDATES)
#define SAAL_CANDIDATES 64  // the tests have fewer: host threads are slow
#endif
#if defined(__CUDACC__)
#define SAAL_UNROLL_ALL _Pragma("unroll")  // keeps an array in registers
#else
#define SAAL_UNROLL_ALL
#endif

namespace saal {

constexpr int kThreads = kFan;                // one per row of a block
constexpr int kTeams = kThreads / kLanes;     // teams of kLanes threads in a thread block
constexpr int kCandidates = SAAL_CANDIDATES;  // drawn at once
constexpr int kSplits = 4;                    // thread blocks that compare one candidate

/// Where a search stands; on the device.
struct Control {
    Refresh refresh;
    std::int64_t chosen;      // rows chosen, without the given ones
    std::int64_t folded;      // centres folded into the weights
    std::int64_t candidates;  // scanned so far
    std::int64_t accepted;
    std::int64_t refreshes;
    std::int64_t distances;
    std::int64_t stopped;  // kNoWeightLeft or kOverflow; 0 while it goes on
    double total;          // of the weights
    bool due;              // whether a refresh is due
};

/// The data and the workspace. All arrays are on the device.
template <class T>
struct Problem {
    const T* x;  // [rows, dim]
    std::int64_t rows, dim, row_stride;
    const T* left;  // [rows, left_dim]; null unless rows are outer products
    std::int64_t left_dim, left_stride;
    std::int64_t k;
    std::int64_t given;  // centres chosen before
    Uniforms uniforms;

    Control* control;
    std::int64_t* centres;     // [given + k]
    double* sample;            // [rows], factors of D²; null for ones
    double* weights;           // [rows]
    double* block_sums;        // [blocks]
    double* group_sums;        // [groups]
    double* norms;             // [rows], for outer products
    std::int64_t* candidates;  // [kCandidates]
    double* least;   // [kSplits, kCandidates], their least squared distances from the pending centres
    double* mutual;  // [kCandidates, kCandidates], their squared distances from earlier candidates
    float* normalized_norms;  // [rows], squared norms of the normalized rows (kmeans/normalization.h)
    T* shift;                 // [dim], the normalization's, with the numbers below
    double scale, left_scale;
    float keep;

    SAAL_HOST_DEVICE std::int64_t blocks() const { return parts(rows, kFan); }
    SAAL_HOST_DEVICE std::int64_t groups() const { return parts(blocks(), kFan); }
    SAAL_HOST_DEVICE bool line() const { return dim == 1 && left == nullptr; }
};

__device__ inline int thread_number() {
    return static_cast<int>(threadIdx.x);
}
__device__ inline int lane_number() {
    return thread_number() % kLanes;
}
__device__ inline int team_number() {
    return thread_number() / kLanes;
}
__device__ inline unsigned team_mask() {
    return 0xffffu << (thread_number() % 32 / kLanes * kLanes);
}

/// The sum over a team's lanes, in each of its threads.
__device__ inline double fold_team(double lane) {
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        lane += __shfl_xor_sync(team_mask(), lane, distance, kLanes);
    return lane;
}

/// ⟨a, b⟩, by a team.
template <class T>
__device__ double team_dot(const T* a, const T* b, std::int64_t dim) {
    double sum = 0.0;
    for (std::int64_t j = lane_number(); j < dim; j += kLanes)
        sum = add_product(sum, static_cast<double>(a[j]), static_cast<double>(b[j]));
    return fold_team(sum);
}

/// The squared distance of two rows, by a team.
template <class T>
__device__ double team_distance(const Problem<T>& problem, std::int64_t row, std::int64_t other) {
    const T* a = problem.x + row * problem.row_stride;
    const T* b = problem.x + other * problem.row_stride;
    if (problem.left != nullptr) {
        const double left = team_dot(problem.left + row * problem.left_stride,
                                     problem.left + other * problem.left_stride, problem.left_dim);
        return from_products(problem.norms[row], problem.norms[other], left, team_dot(a, b, problem.dim));
    }
    double sum = 0.0;
    for (std::int64_t j = lane_number(); j < problem.dim; j += kLanes)
        sum = add_square(sum, static_cast<double>(a[j]) - static_cast<double>(b[j]));
    return fold_team(sum);
}

/// The lesser of a weight and a weighted squared distance.
template <class T>
__device__ double lowered(const Problem<T>& problem, std::int64_t row, double squared, double weight) {
    if (problem.sample != nullptr) squared *= problem.sample[row];
    return squared < weight ? squared : weight;
}

/// A row's weight before a refresh.
template <class T>
__device__ double weight_before(const Problem<T>& problem, std::int64_t row) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    return problem.control->folded > 0 ? problem.weights[row] : kInfinity;
}

/// Whether no refresh is due.
__device__ inline bool not_due(const Control& control) {
    return !control.due || control.stopped != 0;
}

/// out[p] <- the lane sum of the kFan values of part p, for p = team, team + step, ...
__device__ inline void sum_parts(const double* values, std::int64_t count, double* out, std::int64_t team,
                                 std::int64_t step) {
    for (std::int64_t part = team; part < parts(count, kFan); part += step) {
        double sum = 0.0;
        for (std::int64_t i = part * kFan + lane_number(); i < (part + 1) * kFan && i < count; i += kLanes)
            sum += values[i];
        sum = fold_team(sum);
        if (lane_number() == 0) out[part] = sum;
    }
}

/// Sums the groups. Thread 0 returns the total, others 0. One thread block.
template <class T>
__device__ double sum_groups(const Problem<T>& problem) {
    sum_parts(problem.block_sums, problem.blocks(), problem.group_sums, team_number(), kTeams);
    __syncthreads();
    double total = 0.0;
    if (thread_number() == 0)
        for (std::int64_t group = 0; group < problem.groups(); ++group) total += problem.group_sums[group];
    return total;
}

/// Updates `control` after a refresh; for thread 0.
template <class T>
__device__ void refreshed(const Problem<T>& problem, Control& control, double total) {
    const std::int64_t centres = problem.given + control.chosen;
    control.distances += problem.rows * (centres - control.folded);
    control.folded = centres;
    control.refreshes += 1;
    control.refresh.done();
    control.due = false;
    control.total = total;
    if (!(total - total == 0.0))  // inf or NaN
        control.stopped = kOverflow;
    else if (total == 0.0)
        control.stopped = kNoWeightLeft;
}

/// `descend` over at most kFan values, by thread 0 after all threads have copied them to shared memory.
__device__ inline Pick descend_together(const double* values, std::int64_t count, double target, double* tile,
                                        Pick* shared) {
    const int thread = thread_number();
    if (thread < count) tile[thread] = values[thread];
    __syncthreads();
    if (thread == 0) *shared = descend(tile, count, target);
    __syncthreads();
    return *shared;  // stays until after the next barrier
}

/// The row that `u` draws, in every thread of a block. Needs a finite total above 0.
template <class T>
__device__ std::int64_t draw_together(const Problem<T>& problem, double total, double u) {
    __shared__ double tile[kFan];
    __shared__ Pick shared;
    const std::int64_t blocks = problem.blocks();
    if (thread_number() == 0) shared = descend(problem.group_sums, problem.groups(), u * total);
    __syncthreads();
    Pick pick = shared;
    std::int64_t begin = pick.index * kFan;
    pick = descend_together(problem.block_sums + begin, blocks - begin < kFan ? blocks - begin : kFan,
                            pick.rest, tile, &shared);
    begin = (begin + pick.index) * kFan;
    pick =
        descend_together(problem.weights + begin, problem.rows - begin < kFan ? problem.rows - begin : kFan,
                         pick.rest, tile, &shared);
    return begin + pick.index;
}

}  // namespace saal
