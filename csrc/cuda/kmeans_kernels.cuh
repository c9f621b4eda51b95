// The kernels that start a search, and those of the plain algorithm.
#pragma once

#include "cuda/kmeans_problem.cuh"

namespace saal {

/// out[i] <- ‖x_i‖², or of an outer product ‖left_i‖² ‖x_i‖². One thread block per block of rows.
template <class T>
__global__ void __launch_bounds__(kThreads) norms_kernel(Problem<T> problem, double* out) {
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kFan;
    for (std::int64_t i = begin + team_number(); i < begin + kFan && i < problem.rows; i += kTeams) {
        const T* row = problem.x + i * problem.row_stride;
        double norm = team_dot(row, row, problem.dim);
        if (problem.left != nullptr) {
            const T* left = problem.left + i * problem.left_stride;
            norm = team_dot(left, left, problem.left_dim) * norm;
        }
        if (lane_number() == 0) out[i] = norm;
    }
}

/// Sums the blocks where a refresh is due. One team per block.
template <class T>
__global__ void __launch_bounds__(kThreads) block_sums_kernel(Problem<T> problem) {
    if (not_due(*problem.control)) return;
    const std::int64_t teams = parts(problem.blocks(), kTeams) * kTeams;
    sum_parts(problem.weights, problem.rows, problem.block_sums,
              static_cast<std::int64_t>(blockIdx.x) * kTeams + team_number(), teams);
}

/// Draws the first row in proportion to the given weights, which are in `weights` and `block_sums` for now.
/// One thread block.
template <class T>
__global__ void __launch_bounds__(kThreads) first_kernel(Problem<T> problem) {
    __shared__ double shared;
    const double total = sum_groups(problem);
    if (thread_number() == 0) shared = total;
    __syncthreads();
    const std::int64_t row = draw_together(problem, shared, problem.uniforms(0));
    if (thread_number() == 0) {
        problem.centres[0] = row;
        problem.control->chosen = 1;
    }
}

/// Refreshes where it is due: weights[i] <- the least of itself and the weighted squared distances from the
/// pending centres, all computed exactly; and each block's sum. One thread block per block of rows.
template <class T>
__global__ void __launch_bounds__(kThreads) fold_kernel(Problem<T> problem) {
    __shared__ double tile[kFan];
    const Control& control = *problem.control;
    if (not_due(control)) return;
    const std::int64_t end = problem.given + control.chosen;
    const int thread = thread_number();
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kFan;
    const std::int64_t own = begin + thread;

    double weight = own < problem.rows ? weight_before(problem, own) : 0.0;
    if (problem.line()) {  // a row is one number: one thread per row
        if (own < problem.rows) {
            const auto value = static_cast<double>(problem.x[own * problem.row_stride]);
            for (std::int64_t c = control.folded; c < end; ++c) {
                const auto centre = static_cast<double>(problem.x[problem.centres[c] * problem.row_stride]);
                weight = lowered(problem, own, square(value - centre), weight);
            }
        }
        tile[thread] = weight;
    } else {
        tile[thread] = weight;
        __syncthreads();
        for (std::int64_t c = control.folded; c < end; ++c)
            for (int r = team_number(); r < kFan && begin + r < problem.rows; r += kTeams) {
                const double squared = team_distance(problem, begin + r, problem.centres[c]);
                if (lane_number() == 0) tile[r] = lowered(problem, begin + r, squared, tile[r]);
            }
    }
    __syncthreads();

    if (own < problem.rows) problem.weights[own] = tile[thread];
    if (thread < kLanes) {
        double sum = 0.0;
        for (int r = thread; r < kFan; r += kLanes) sum += tile[r];
        sum = fold_team(sum);
        if (thread == 0) problem.block_sums[blockIdx.x] = sum;
    }
}

/// Ends a refresh where one is due, with the sums of groups and the total. One thread block.
template <class T>
__global__ void __launch_bounds__(kThreads) sum_kernel(Problem<T> problem) {
    Control& control = *problem.control;
    if (not_due(control)) return;
    const double total = sum_groups(problem);
    if (thread_number() == 0) refreshed(problem, control, total);
}

/// Ends a refresh and draws the next row of the plain algorithm. One thread block.
template <class T>
__global__ void __launch_bounds__(kThreads) select_kernel(Problem<T> problem) {
    __shared__ double shared;
    __shared__ bool stopped;
    Control& control = *problem.control;
    if (control.stopped != 0) return;
    const double total = sum_groups(problem);
    if (thread_number() == 0) {
        if (control.due) refreshed(problem, control, total);
        shared = total;
        stopped = control.stopped != 0;
    }
    __syncthreads();
    if (stopped) return;
    const std::int64_t t = control.chosen;
    const std::int64_t row = draw_together(problem, shared, problem.uniforms(t));
    if (thread_number() == 0) {
        problem.centres[problem.given + t] = row;
        control.chosen = t + 1;
        control.due = true;
    }
}

}  // namespace saal
