// k-means++ on a CUDA device: pointers and a stream in, rows out.
#pragma once

#include <cstdint>
#include <string>

#include "kmeans/kmeans.h"

namespace saal {

/// The number of devices; if 0, the runtime's reason is in `why`.
int cuda_device_count(std::string& why);

/// The toolkit's version at build time, such as "13.0".
std::string cuda_toolkit_version();

/// Bytes of device memory that `cuda_kmeans_plusplus` works in.
template <class T>
std::int64_t cuda_workspace_bytes(const Rows<T>& x, std::int64_t k, std::int64_t initial, bool weighted);

/// As `kmeans_plusplus`, by "plain" or "rejection", with the same rows for the same uniforms. The arrays of
/// `x` and `workspace` (aligned to 16 bytes) are on `device`, those of `options` on the host. No uniforms can
/// be given. The work follows the work on `stream` (a cudaStream_t), and is done on return. Throws
/// std::runtime_error on a CUDA error.
template <class T>
Seeding cuda_kmeans_plusplus(const Rows<T>& x, const Options& options, int device, std::uintptr_t stream,
                             void* workspace);

}  // namespace saal
