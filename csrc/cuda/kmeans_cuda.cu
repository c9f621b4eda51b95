#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>

#include "../kmeans_host.h"
#include "kmeans_cuda.h"
#include "kmeans_kernels.cuh"

namespace saal {
namespace {

/// Draws enqueued before the host looks at signals again.
constexpr std::int64_t kDrawsBetweenChecks = 64;

void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("CUDA error in ") + what + ": " + cudaGetErrorString(error));
}

/// Makes `device` current, and the one before it again at the end.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&before_), "cudaGetDevice");
        check(cudaSetDevice(device), "cudaSetDevice");
    }
    ~DeviceGuard() { cudaSetDevice(before_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = 0;
};

/// What throws between launches must not leave work behind on memory that its owner then frees.
class FinishStream {
  public:
    explicit FinishStream(cudaStream_t stream) : stream_(stream) {}
    ~FinishStream() { cudaStreamSynchronize(stream_); }
    FinishStream(const FinishStream&) = delete;
    FinishStream& operator=(const FinishStream&) = delete;

  private:
    cudaStream_t stream_;
};

template <class V>
void copy(V* to, const V* from, std::int64_t count, cudaMemcpyKind kind, cudaStream_t stream) {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(V), kind, stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace

int cuda_device_count(std::string& why) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    why = error == cudaSuccess ? (count > 0 ? "" : "the driver lists no device") : cudaGetErrorString(error);
    return error == cudaSuccess ? count : 0;
}

std::string cuda_toolkit_version() {
    return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::int64_t cuda_workspace_bytes(std::int64_t rows, std::int64_t k) {
    const std::int64_t blocks = parts(rows, kFan);
    return (rows + blocks + parts(blocks, kFan) + 2 * k) * static_cast<std::int64_t>(sizeof(double));
}

template <class T>
std::vector<std::int64_t> cuda_kmeans_plusplus(const Matrix<T>& x, std::int64_t k, First first,
                                               const std::vector<double>& uniforms, int device,
                                               std::uintptr_t stream, void* workspace,
                                               const std::function<void()>& between_centres) {
    check_arguments(x.rows, x.dim, k, uniforms);
    const DeviceGuard on(device);
    // The address of a stream is what crosses the language border.
    auto* const queue = reinterpret_cast<cudaStream_t>(stream);  // NOLINT(performance-no-int-to-ptr)
    const FinishStream finish(queue);

    auto* memory = static_cast<double*>(workspace);
    const auto take = [&memory](std::int64_t count) {
        double* part = memory;
        memory += count;
        return part;
    };
    const std::int64_t blocks = parts(x.rows, kFan);
    Problem<T> problem{};
    problem.x = x.data;
    problem.rows = x.rows;
    problem.dim = x.dim;
    problem.row_stride = x.row_stride;
    double* device_uniforms = take(k);
    problem.uniforms = device_uniforms;
    problem.chosen = reinterpret_cast<std::int64_t*>(take(k));
    problem.weights = take(x.rows);
    problem.block_sums = take(blocks);
    problem.group_sums = take(parts(blocks, kFan));
    const auto launch = [queue](auto kernel, std::int64_t grid, auto... arguments) {
        kernel<<<static_cast<unsigned>(grid), kThreads, 0, queue>>>(arguments...);
        check(cudaGetLastError(), "a kernel launch");
    };

    copy(device_uniforms, uniforms.data(), k, cudaMemcpyHostToDevice, queue);
    launch(distance_kernel<T>, blocks, problem, static_cast<const std::int64_t*>(nullptr), true);
    std::vector<double> norms(static_cast<std::size_t>(x.rows));
    copy(norms.data(), problem.weights, x.rows, cudaMemcpyDeviceToHost, queue);
    const std::int64_t largest = check_norms(norms.data(), x.rows, [&](std::int64_t row) {
        std::vector<T> values(static_cast<std::size_t>(x.dim));
        copy(values.data(), x.data + row * x.row_stride, x.dim, cudaMemcpyDeviceToHost, queue);
        return values;
    });

    std::vector<std::int64_t> chosen(static_cast<std::size_t>(k));
    chosen[0] = first == First::kArgmax ? largest : uniform_index(uniforms[0], x.rows);
    copy(problem.chosen, chosen.data(), 1, cudaMemcpyHostToDevice, queue);
    for (std::int64_t t = 1; t < k; t += kDrawsBetweenChecks) {
        enqueue_draws(problem, t, std::min(k, t + kDrawsBetweenChecks), launch);
        check(cudaStreamSynchronize(queue), "the draws");
        between_centres();
    }
    copy(chosen.data(), problem.chosen, k, cudaMemcpyDeviceToHost, queue);

    const auto failed = std::find_if(chosen.begin(), chosen.end(), [](std::int64_t row) { return row < 0; });
    if (failed != chosen.end()) {
        if (*failed == kOverflow) throw_overflow();
        fill_unchosen(chosen, static_cast<std::size_t>(failed - chosen.begin()), x.rows, uniforms);
    }
    return chosen;
}

template std::vector<std::int64_t> cuda_kmeans_plusplus<float>(const Matrix<float>&, std::int64_t, First,
                                                               const std::vector<double>&, int,
                                                               std::uintptr_t, void*,
                                                               const std::function<void()>&);
template std::vector<std::int64_t> cuda_kmeans_plusplus<double>(const Matrix<double>&, std::int64_t, First,
                                                                const std::vector<double>&, int,
                                                                std::uintptr_t, void*,
                                                                const std::function<void()>&);

}  // namespace saal
