#include <cuda_runtime.h>

#include <stdexcept>

#include "cuda/kmeans.h"
#include "cuda/kmeans_search.h"

namespace saal {
namespace {

void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string("CUDA error in ") + what + ": " + cudaGetErrorString(error));
}

/// Makes `device` the current one for its lifetime.
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

/// Waits for the stream at its end: after an exception between launches, the caller frees the workspace.
class FinishStream {
  public:
    explicit FinishStream(cudaStream_t stream) : stream_(stream) {}
    ~FinishStream() { cudaStreamSynchronize(stream_); }
    FinishStream(const FinishStream&) = delete;
    FinishStream& operator=(const FinishStream&) = delete;

  private:
    cudaStream_t stream_;
};

/// The device of a `DeviceSearch`.
class Stream {
  public:
    explicit Stream(cudaStream_t stream) : stream_(stream) {}

    template <class Kernel, class... Arguments>
    void launch(Kernel kernel, std::int64_t grid, int threads, Arguments... arguments) {
        kernel<<<static_cast<unsigned>(grid), static_cast<unsigned>(threads), 0, stream_>>>(arguments...);
        check(cudaGetLastError(), "a kernel launch");
    }
    template <class V>
    void upload(V* there, const V* here, std::int64_t count) {
        copy(there, here, count, cudaMemcpyHostToDevice);
    }
    template <class V>
    void download(V* here, const V* there, std::int64_t count) {
        copy(here, there, count, cudaMemcpyDeviceToHost);
    }
    template <class V>
    void download_rows(V* here, const V* there, std::int64_t rows, std::int64_t width, std::int64_t stride) {
        // 2-D copies refuse strides that an array may have: any with one row, 0 with equal rows.
        for (std::int64_t row = 0; row < rows; ++row)
            check(
                cudaMemcpyAsync(here + row * width, there + row * stride,
                                static_cast<std::size_t>(width) * sizeof(V), cudaMemcpyDeviceToHost, stream_),
                "cudaMemcpyAsync");
        check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    }

  private:
    template <class V>
    void copy(V* to, const V* from, std::int64_t count, cudaMemcpyKind kind) {
        check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(V), kind, stream_),
              "cudaMemcpyAsync");
        check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    }

    cudaStream_t stream_;
};

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

template <class T>
std::int64_t cuda_workspace_bytes(const Rows<T>& x, std::int64_t k, std::int64_t initial, bool weighted) {
    return workspace_bytes(x, k, initial, weighted);
}

template <class T>
Seeding cuda_kmeans_plusplus(const Rows<T>& x, const Options& options, int device, std::uintptr_t stream,
                             void* workspace) {
    const DeviceGuard guard(device);
    auto* const queue = reinterpret_cast<cudaStream_t>(stream);  // NOLINT(performance-no-int-to-ptr)
    const FinishStream finish(queue);
    Stream there(queue);
    return DeviceSearch<T, Stream>(there, x, options, workspace).run();
}

template std::int64_t cuda_workspace_bytes<float>(const Rows<float>&, std::int64_t, std::int64_t, bool);
template std::int64_t cuda_workspace_bytes<double>(const Rows<double>&, std::int64_t, std::int64_t, bool);
template Seeding cuda_kmeans_plusplus<float>(const Rows<float>&, const Options&, int, std::uintptr_t, void*);
template Seeding cuda_kmeans_plusplus<double>(const Rows<double>&, const Options&, int, std::uintptr_t,
                                              void*);

}  // namespace saal
