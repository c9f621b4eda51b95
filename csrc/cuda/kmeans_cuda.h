// k-means++ on a CUDA device: pointers and a stream in, rows out. Knows nothing of Python or torch.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../kmeans.h"

namespace saal {

/// The devices' number; 0 with the runtime's reason in `why` where there is none.
int cuda_device_count(std::string& why);

/// "13.0": of the toolkit this was built with.
std::string cuda_toolkit_version();

/// Bytes of device memory that `cuda_kmeans_plusplus` works in.
std::int64_t cuda_workspace_bytes(std::int64_t rows, std::int64_t k);

/// As `kmeans_plusplus`, with the same rows for the same uniforms. `x.data` and `workspace` (aligned to 16
/// bytes) are on `device`; the work is ordered after what `stream` (a cudaStream_t) holds, and is done on
/// return. Throws std::runtime_error on a CUDA error.
template <class T>
std::vector<std::int64_t> cuda_kmeans_plusplus(const Matrix<T>& x, std::int64_t k, First first,
                                               const std::vector<double>& uniforms, int device,
                                               std::uintptr_t stream, void* workspace,
                                               const std::function<void()>& between_centres);

}  // namespace saal
