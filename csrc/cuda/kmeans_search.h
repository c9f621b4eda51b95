// The host's driver of a search on a device: a CUDA stream (kmeans.cu), or host threads in the tests.
//
// A device has
//   launch(kernel, thread blocks, threads, arguments...)
//   upload(there, here, count), download(here, there, count): done on return
//   download_rows(here, there, rows, width, stride): the same for rows `stride` elements apart
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/kmeans_kernels.cuh"
#include "cuda/kmeans_rejection.cuh"
#include "kmeans/host.h"

namespace saal {

/// The parts of a workspace, one after the other, each aligned to 16 bytes.
class Parts {
  public:
    explicit Parts(void* begin) : begin_(static_cast<char*>(begin)) {}

    template <class V>
    V* take(std::int64_t count) {
        V* part = begin_ == nullptr ? nullptr : reinterpret_cast<V*>(begin_ + used_);
        used_ += parts(count * static_cast<std::int64_t>(sizeof(V)), 16) * 16;
        return part;
    }
    std::int64_t used() const { return used_; }

  private:
    char* begin_;
    std::int64_t used_ = 0;
};

/// Places a problem's workspace at `begin`, and returns its size in bytes; null asks for the size only.
template <class T>
std::int64_t place(Problem<T>& problem, void* begin, bool weighted) {
    Parts memory(begin);
    problem.control = memory.take<Control>(1);
    problem.centres = memory.take<std::int64_t>(problem.given + problem.k);
    problem.weights = memory.take<double>(problem.rows);
    problem.block_sums = memory.take<double>(problem.blocks());
    problem.group_sums = memory.take<double>(problem.groups());
    problem.candidates = memory.take<std::int64_t>(kCandidates);
    problem.least = memory.take<double>(std::int64_t{kSplits} * kCandidates);
    problem.mutual = memory.take<double>(std::int64_t{kCandidates} * kCandidates);
    problem.normalized_norms = memory.take<float>(problem.rows);
    problem.shift = memory.take<T>(problem.dim);
    problem.norms = memory.take<double>(problem.left_dim > 0 ? problem.rows : 0);
    problem.sample = memory.take<double>(weighted ? problem.rows : 0);
    if (!weighted) problem.sample = nullptr;
    return memory.used();
}

/// A problem of the shape of `x`.
template <class T>
Problem<T> problem_of(const Rows<T>& x, std::int64_t k, std::int64_t initial) {
    Problem<T> problem{};
    problem.x = x.x.data;
    problem.rows = x.count();
    problem.dim = x.x.dim;
    problem.row_stride = x.x.row_stride;
    problem.left = x.factored() ? x.left.data : nullptr;
    problem.left_dim = x.left.dim;
    problem.left_stride = x.left.row_stride;
    problem.k = k;
    problem.given = initial;
    return problem;
}

/// Bytes of the workspace of a problem.
template <class T>
std::int64_t workspace_bytes(const Rows<T>& x, std::int64_t k, std::int64_t initial, bool weighted) {
    Problem<T> problem = problem_of(x, k, initial);
    return place(problem, nullptr, weighted);
}

/// Chooses rows of `x`. `x` and `workspace` are on the device, the arrays of `options` on the host.
template <class T, class Device>
class DeviceSearch {
  public:
    DeviceSearch(Device& device, const Rows<T>& x, const Options& options, void* workspace)
        : device_(device), x_(x), options_(options) {
        check(x, options);
        if (options.algorithm != Algorithm::kPlain && options.algorithm != Algorithm::kRejection)
            throw std::invalid_argument("expected algorithm='plain' or 'rejection' on a device");
        problem_ = problem_of(x, options.k, static_cast<std::int64_t>(options.initial.size()));
        problem_.uniforms = options.uniforms;
        place(problem_, workspace, options.weights != nullptr);
        control_.refresh = {x.count(), x.width(), options.refresh_every};
        by_bounds_ = options.algorithm == Algorithm::kRejection && !problem_.line();
    }

    Seeding run() {
        start();
        if (options_.algorithm == Algorithm::kPlain)
            plain();
        else
            rejection();
        std::vector<std::int64_t> chosen(static_cast<std::size_t>(control_.chosen));
        device_.download(chosen.data(), problem_.centres + problem_.given, control_.chosen);
        if (options_.potential && control_.folded < problem_.given + control_.chosen) {
            control_.due = true;
            upload_control();
            refresh();
            read();
        }
        const bool rejecting = options_.algorithm == Algorithm::kRejection;
        Seeding seeding{std::move(chosen), {}};
        seeding.info.algorithm = rejecting ? "rejection" : "plain";
        if (options_.potential) seeding.info.potential = control_.total;
        seeding.info.candidates = control_.candidates;
        seeding.info.accepted = control_.accepted;
        seeding.info.refreshes = control_.refreshes;
        seeding.info.distances = control_.distances;
        fill(seeding.rows, x_.count(), options_, rejecting ? 2 * control_.candidates + 1 : control_.chosen);
        return seeding;
    }

  private:
    /// The host looks at signals after it has enqueued reads of so many numbers, some tenths of a second.
    static constexpr std::int64_t kNumbersBetween = std::int64_t{1} << 36;

    void start() {
        if (options_.weights != nullptr) device_.upload(problem_.sample, options_.weights, x_.count());
        if (x_.factored()) check_norms(norms(problem_.norms), fetch());
        if (by_bounds_) normalize();
        control_.due = true;
        if (options_.initial.empty()) {
            first();
        } else {
            device_.upload(problem_.centres, options_.initial.data(), problem_.given);
            upload_control();
        }
        refresh();
        read();
    }

    /// Squared norms, which also stay at `there`.
    std::vector<double> norms(double* there) {
        launch(norms_kernel<T>, problem_.blocks(), kThreads, there);
        std::vector<double> out(static_cast<std::size_t>(x_.count()));
        device_.download(out.data(), there, x_.count());
        return out;
    }

    auto fetch() {
        return [this](std::int64_t row) {
            std::vector<T> values(static_cast<std::size_t>(x_.width()));
            device_.download(values.data(), x_.x.data + row * x_.x.row_stride, x_.x.dim);
            if (x_.factored())
                device_.download(values.data() + x_.x.dim, x_.left.data + row * x_.left.row_stride,
                                 x_.left.dim);
            return values;
        };
    }

    /// Fits the normalization to some rows, and computes all rows' normalized norms.
    void normalize() {
        const std::int64_t step = sample_step(x_.count());
        const auto some = [&](const Matrix<T>& part, std::vector<T>& values) {
            const Matrix<T> rows{nullptr, parts(x_.count(), step), part.dim, part.dim};
            values.resize(static_cast<std::size_t>(rows.rows * rows.dim));
            if (part.dim > 0)
                device_.download_rows(values.data(), part.data, rows.rows, rows.dim, part.row_stride * step);
            return Matrix<T>{values.data(), rows.rows, rows.dim, rows.dim};
        };
        std::vector<T> x, left;
        const Matrix<T> rows = some(x_.x, x);
        const auto fitted = fit_normalization(Rows<T>{rows, some(x_.left, left), nullptr});
        device_.upload(problem_.shift, fitted.shift.data(), problem_.dim);
        problem_.scale = fitted.scale;
        problem_.left_scale = fitted.left_scale;
        problem_.keep = fitted.keep;
        launch(normalized_norms_kernel<T>, problem_.blocks(), kThreads);
    }

    void first() {
        if (options_.first == First::kRandom && options_.weights != nullptr) {
            device_.upload(problem_.weights, options_.weights, x_.count());
            upload_control();
            sum_blocks();
            launch(first_kernel<T>, 1, kThreads);
            return;
        }
        std::int64_t row = 0;
        if (options_.first == First::kArgmax) {
            const std::vector<double> squared = norms(problem_.weights);
            check_norms(squared, fetch());
            row = largest_norm(squared, options_.weights);
        } else {
            row = uniform_index(options_.uniforms(0), x_.count());
        }
        device_.upload(problem_.centres, &row, 1);
        control_.chosen = 1;
        upload_control();
    }

    void plain() {
        const std::int64_t draws = between(x_.width());
        while (control_.chosen < options_.k && control_.stopped == 0) {
            options_.between();
            const std::int64_t end = std::min(options_.k, control_.chosen + draws);
            for (std::int64_t t = control_.chosen; t < end; ++t) {
                launch(select_kernel<T>, 1, kThreads);
                if (t + 1 < options_.k) fold();
            }
            read();
        }
    }

    void rejection() {
        const std::int64_t rounds = std::min<std::int64_t>(between(64 * x_.width()), 8);
        while (control_.chosen < options_.k && control_.stopped == 0) {
            options_.between();
            for (std::int64_t round = 0; round < rounds; ++round) {
                launch(draw_kernel<T>, kCandidates, kThreads);
                launch(compare_kernel<T>, std::int64_t{kCandidates} * kSplits, kThreads);
                launch(scan_kernel<T>, 1, kCandidates);
                refresh();
            }
            read();
        }
    }

    /// How many passes to enqueue at once, if each reads so many numbers per row.
    std::int64_t between(std::int64_t numbers_per_row) const {
        return std::clamp<std::int64_t>(kNumbersBetween / (x_.count() * numbers_per_row), 1, 256);
    }

    /// A refresh, where one is due.
    void refresh() {
        if (by_bounds_) {
            launch(update_block_kernel<T>, parts(x_.count(), kStrip), kThreads);
            sum_blocks();
        } else {
            fold();
        }
        launch(sum_kernel<T>, 1, kThreads);
    }

    void fold() { launch(fold_kernel<T>, problem_.blocks(), kThreads); }
    void sum_blocks() { launch(block_sums_kernel<T>, parts(problem_.blocks(), kTeams), kThreads); }

    template <class Kernel, class... More>
    void launch(Kernel kernel, std::int64_t grid, int threads, More... more) {
        device_.launch(kernel, grid, threads, problem_, more...);
    }

    void upload_control() { device_.upload(problem_.control, &control_, 1); }

    /// Waits for the device. Throws where the weights overflow.
    void read() {
        device_.download(&control_, problem_.control, 1);
        if (control_.stopped != kOverflow) return;
        check_norms(norms(problem_.weights), fetch());
        throw_overflow();
    }

    Device& device_;
    const Rows<T> x_;
    const Options& options_;
    Problem<T> problem_{};
    Control control_{};
    bool by_bounds_ = false;
};

}  // namespace saal
