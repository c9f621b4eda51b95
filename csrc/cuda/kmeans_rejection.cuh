// The kernels of the rejection sampler (kmeans/rejection.cpp says why it is exact). A round draws candidates,
// compares each with the pending centres and with the candidates before it, and scans them in order by the
// policy of the CPU; a refresh follows where the policy says so. The host launches rounds ahead, and a kernel
// without work returns at once.
#pragma once

#include <limits>

#include "cuda/kmeans_problem.cuh"
#include "kmeans/normalization.h"

namespace saal {

constexpr int kStrip = 64;  // rows whose weights a thread block updates
constexpr int kTile = 64;   // centres at once
constexpr int kDepth = 16;  // columns at once
constexpr int kEach = 4;    // a thread multiplies so many rows with so many centres

/// Whether a search has ended.
template <class T>
__device__ bool idle(const Problem<T>& problem) {
    return problem.control->stopped != 0 || problem.control->chosen >= problem.k;
}

/// Draws the next candidates. One thread block per candidate.
template <class T>
__global__ void __launch_bounds__(kThreads) draw_kernel(Problem<T> problem) {
    if (idle(problem)) return;
    const auto b = static_cast<std::int64_t>(blockIdx.x);
    const double u = problem.uniforms(2 * (problem.control->candidates + b) + 1);
    const std::int64_t row = draw_together(problem, problem.control->total, u);
    if (thread_number() == 0) problem.candidates[b] = row;
}

/// Computes each candidate's least squared distance from the pending centres, and its squared distances from
/// earlier candidates. kSplits thread blocks per candidate.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) compare_kernel(Problem<T> problem) {
    __shared__ double found[kTeams];
    if (idle(problem)) return;
    const int b = static_cast<int>(blockIdx.x) / kSplits;
    const int split = static_cast<int>(blockIdx.x) % kSplits;
    const int first = split * kTeams + team_number();
    const std::int64_t row = problem.candidates[b];
    const std::int64_t end = problem.given + problem.control->chosen;
    double least = std::numeric_limits<double>::infinity();
    for (std::int64_t c = problem.control->folded + first; c < end; c += kSplits * kTeams) {
        const double squared = team_distance(problem, row, problem.centres[c]);
        least = squared < least ? squared : least;
    }
    for (int other = first; other < b; other += kSplits * kTeams) {
        const double squared = team_distance(problem, row, problem.candidates[other]);
        if (lane_number() == 0) problem.mutual[other * kCandidates + b] = squared;
    }
    if (lane_number() == 0) found[team_number()] = least;
    __syncthreads();
    if (thread_number() == 0) {
        for (int team = 1; team < kTeams; ++team) least = found[team] < least ? found[team] : least;
        problem.least[split * kCandidates + b] = least;
    }
}

/// Scans the candidates in order until one makes a refresh due. One thread block, one thread per candidate;
/// each thread follows the policy for itself.
template <class T>
__global__ void __launch_bounds__(kCandidates) scan_kernel(Problem<T> problem) {
    __shared__ bool verdicts[kCandidates];
    if (idle(problem)) return;
    const int thread = thread_number();
    Control control = *problem.control;
    const std::int64_t row = problem.candidates[thread];
    const double u = problem.uniforms(2 * (control.candidates + thread) + 2);
    const double threshold = u * problem.weights[row];
    double least = problem.least[thread];
    for (int split = 1; split < kSplits; ++split) {
        const double other = problem.least[split * kCandidates + thread];
        least = other < least ? other : least;
    }
    for (int b = 0; b < kCandidates && control.chosen < problem.k && !control.due; ++b) {
        if (thread == b) {
            const double sample = problem.sample == nullptr ? 1.0 : problem.sample[row];
            verdicts[b] = threshold < sample * least;
        }
        __syncthreads();
        control.candidates += 1;
        control.distances += control.refresh.pending;
        if (verdicts[b]) {
            if (thread == b) problem.centres[problem.given + control.chosen] = row;
            if (thread > b) {
                const double other = problem.mutual[b * kCandidates + thread];
                least = other < least ? other : least;
            }
            control.chosen += 1;
            control.accepted += 1;
            control.refresh.accept();
        } else {
            control.refresh.reject();
        }
        control.due = control.refresh.due(problem.k - control.chosen);
    }
    if (thread == 0) *problem.control = control;
}

/// A normalized number.
template <class T>
__device__ float normalized(T value, T shift, double scale) {
    return static_cast<float>((value - shift) * static_cast<T>(scale));
}

/// normalized_norms[i] <- ‖x'_i‖², or of outer products ‖left'_i‖² ‖x'_i‖². One thread block per block of
/// rows.
template <class T>
__global__ void __launch_bounds__(kThreads) normalized_norms_kernel(Problem<T> problem) {
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kFan;
    for (std::int64_t i = begin + team_number(); i < begin + kFan && i < problem.rows; i += kTeams) {
        double sum = 0.0;
        for (std::int64_t j = lane_number(); j < problem.dim; j += kLanes) {
            const T value = problem.x[i * problem.row_stride + j];
            sum = add_square(sum, static_cast<double>(normalized(value, problem.shift[j], problem.scale)));
        }
        double norm = fold_team(sum);
        if (problem.left != nullptr) {
            sum = 0.0;
            for (std::int64_t j = lane_number(); j < problem.left_dim; j += kLanes) {
                const T value = problem.left[i * problem.left_stride + j];
                sum = add_square(sum, static_cast<double>(normalized(value, T{0}, problem.left_scale)));
            }
            const double left = fold_team(sum);
            // The norm of an outlier could lift terms that underflowed in the other factor.
            norm = norm < 0x1p40 && left < 0x1p40 ? norm * left : std::numeric_limits<double>::quiet_NaN();
        }
        if (lane_number() == 0) problem.normalized_norms[i] = bounded(norm);
    }
}

/// A few columns of a tile of rows and of a tile of centres.
struct Columns {
    float rows[kDepth][kStrip + 1];
    float centres[kDepth][kTile + 1];
};

/// dots[a][b] <- ⟨row a, centre b⟩ in float, of the kEach rows and centres of this thread, normalized.
/// `shift` is null for zeros. Begins with a barrier.
template <class T>
__device__ void multiply(const T* x, std::int64_t stride, std::int64_t dim, const T* shift, double scale,
                         std::int64_t begin, std::int64_t rows, const std::int64_t* centres, int count,
                         Columns& columns, float (&dots)[kEach][kEach]) {
    const int row = team_number() * kEach;
    const int centre = lane_number() * kEach;
    for (int a = 0; a < kEach; ++a)
        for (int b = 0; b < kEach; ++b) dots[a][b] = 0.0F;
    for (std::int64_t base = 0; base < dim; base += kDepth) {
        __syncthreads();  // the columns before have been read
        const std::int64_t column = base + thread_number() % kDepth;
        const T origin = shift == nullptr || column >= dim ? T{0} : shift[column];
        const auto at = [&](std::int64_t i) {
            return column < dim ? normalized(x[i * stride + column], origin, scale) : 0.0F;
        };
        for (int r = thread_number() / kDepth; r < kStrip; r += kThreads / kDepth)
            columns.rows[thread_number() % kDepth][r] = begin + r < rows ? at(begin + r) : 0.0F;
        for (int c = thread_number() / kDepth; c < kTile; c += kThreads / kDepth)
            columns.centres[thread_number() % kDepth][c] = c < count ? at(centres[c]) : 0.0F;
        __syncthreads();
        for (int j = 0; j < kDepth; ++j) {
            float values[kEach];
            for (int b = 0; b < kEach; ++b) values[b] = columns.centres[j][centre + b];
            for (int a = 0; a < kEach; ++a) {
                const float value = columns.rows[j][row + a];
                for (int b = 0; b < kEach; ++b) dots[a][b] = fmaf(value, values[b], dots[a][b]);
            }
        }
    }
}

/// A centre, and a lower bound of its squared distance.
struct Nearest {
    float bound;
    int centre;  // kTile for none
};

/// The centre of least bound among those of all lanes, if that is below `limit`, in every thread of the team.
/// `tried` has a bit for each of this lane's centres, which is set for those to leave out.
__device__ inline Nearest nearest_open(const float* bounds, int count, float limit, unsigned tried) {
    Nearest nearest{0.0F, kTile};
    for (int c = lane_number(), bit = 0; c < count; c += kLanes, ++bit)
        if (((tried >> bit) & 1u) == 0 && !(bounds[c] >= limit) &&
            (nearest.centre == kTile || bounds[c] < nearest.bound))
            nearest = {bounds[c], c};
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
        const auto bound = static_cast<float>(
            __shfl_xor_sync(team_mask(), static_cast<double>(nearest.bound), distance, kLanes));
        const auto centre = static_cast<int>(
            __shfl_xor_sync(team_mask(), static_cast<double>(nearest.centre), distance, kLanes));
        if (centre < kTile && (nearest.centre == kTile || bound < nearest.bound ||
                               (bound == nearest.bound && centre < nearest.centre)))
            nearest = {bound, centre};
    }
    return nearest;
}

/// Folds the pending centres into the weights where a refresh is due. It computes only those distances
/// exactly that bounds leave open. One thread block per strip of rows. block_sums_kernel follows.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) update_block_kernel(Problem<T> problem) {
    __shared__ Columns columns;
    __shared__ float bounds[kStrip][kTile + 1];
    __shared__ std::int64_t centres[kTile];
    const Control& control = *problem.control;
    if (not_due(control)) return;
    const std::int64_t end = problem.given + control.chosen;
    const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kStrip;
    const double unit = (problem.scale * problem.scale) * (problem.left_scale * problem.left_scale);
    double weights[kStrip / kTeams];  // of the team's rows
    SAAL_UNROLL_ALL
    for (int own = 0; own < kStrip / kTeams; ++own) {
        const std::int64_t i = begin + own * kTeams + team_number();
        weights[own] = i < problem.rows ? weight_before(problem, i) : 0.0;
    }
    for (std::int64_t tile = control.folded; tile < end; tile += kTile) {
        const int count = end - tile < kTile ? static_cast<int>(end - tile) : kTile;
        __syncthreads();  // the bounds and centres before have been read
        if (thread_number() < count) centres[thread_number()] = problem.centres[tile + thread_number()];
        float dots[kEach][kEach];
        multiply<T>(problem.x, problem.row_stride, problem.dim,
                    problem.left == nullptr ? problem.shift : nullptr, problem.scale, begin, problem.rows,
                    centres, count, columns, dots);
        if (problem.left != nullptr) {
            float more[kEach][kEach];
            multiply<T>(problem.left, problem.left_stride, problem.left_dim, nullptr, problem.left_scale,
                        begin, problem.rows, centres, count, columns, more);
            for (int a = 0; a < kEach; ++a)
                for (int b = 0; b < kEach; ++b) dots[a][b] *= more[a][b];
        }
        for (int a = 0; a < kEach; ++a)
            for (int b = 0; b < kEach; ++b) {
                const int r = team_number() * kEach + a;
                const int c = lane_number() * kEach + b;
                if (begin + r >= problem.rows || c >= count) continue;
                const float norms =
                    problem.normalized_norms[begin + r] + problem.normalized_norms[centres[c]];
                const float bound = norms * problem.keep - 2.0F * dots[a][b] - kUnderflow;
                bounds[r][c] = bound == bound ? bound : -std::numeric_limits<float>::infinity();
            }
        __syncthreads();
        SAAL_UNROLL_ALL
        for (int own = 0; own < kStrip / kTeams; ++own) {
            const int r = own * kTeams + team_number();
            if (begin + r >= problem.rows) continue;
            const double sample = problem.sample == nullptr ? 1.0 : problem.sample[begin + r];
            unsigned tried = 0;
            while (weights[own] > 0.0) {
                const Nearest next =
                    nearest_open(bounds[r], count, float_bound(weights[own] / sample, unit), tried);
                if (next.centre == kTile) break;
                if (next.centre % kLanes == lane_number()) tried |= 1u << (next.centre / kLanes);
                const double squared = team_distance(problem, begin + r, centres[next.centre]);
                weights[own] = lowered(problem, begin + r, squared, weights[own]);
            }
        }
    }
    SAAL_UNROLL_ALL
    for (int own = 0; own < kStrip / kTeams; ++own) {
        const std::int64_t i = begin + own * kTeams + team_number();
        if (i < problem.rows && lane_number() == 0) problem.weights[i] = weights[own];
    }
}

}  // namespace saal
