// k-means++ on a CUDA device: pointers and a stream in, rows out. Knows nothing of Python or torch.
#pragma once

#include <cstdint>
#include <string>

#include "kmeans/kmeans.h"

namespace saal {

/// The devices' number; 0 with the runtime's reason in `why` where there is none.
int cuda_device_count(std::string& why);

/// "13.0": of the toolkit this was built with.
std::string cuda_toolkit_version();

/// Bytes of device memory that `cuda_kmeans_plusplus` works in.
template <class T>
std::int64_t cuda_workspace_bytes(const Rows<T>& x, std::int64_t k, std::int64_t initial, bool weighted);

/// As `kmeans_plusplus`, by "plain" or "rejection", with the same rows for the same uniforms. What `x` points
/// to and `workspace` (aligned to 16 bytes) are on `device`, what `options` points to on the host; no
/// uniforms can be given. The work is ordered after what `stream` (a cudaStream_t) holds, and is done on
/// return. Throws std::runtime_error on a CUDA error.
template <class T>
Seeding cuda_kmeans_plusplus(const Rows<T>& x, const Options& options, int device, std::uintptr_t stream,
                             void* workspace);

}  // namespace saal
