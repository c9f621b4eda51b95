#include "support/heap.h"

#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <mutex>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace saal {

#if defined(__GLIBC__)
namespace {

constexpr int kMostMmap = 32 << 20;  // the end of glibc's own moving threshold; it trims at twice that
constexpr int kKeptBytes = 1 << 30;
constexpr std::size_t kPage = 4096;

/// Whether a block of this size gets a mapping of its own. Blocks are held until one has, since free memory
/// in the heap serves before the threshold counts. A block in glibc's heap may use the eight bytes after its
/// end too, a mapped one may not; other allocators' sizes are multiples of 16, so that each of their blocks
/// seems mapped.
bool is_mapped(std::size_t bytes) {
    void* volatile held[4] = {};
    bool mapped = false;
    for (auto& block : held) {
        block = std::malloc(bytes);
        mapped = block != nullptr && malloc_usable_size(block) % 16 == 0;
        if (mapped || block == nullptr) break;
    }
    for (auto& block : held) std::free(block);
    return mapped;
}

/// Whether the program has settings of its own: by the environment, or by mallopt, which stops glibc's
/// threshold.
bool is_tuned() {
    for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
        if (std::getenv(name) != nullptr) return true;
    if (!is_mapped(kMostMmap + 2 * kPage)) return true;
    // A mapped block moves a threshold that still moves above itself once it is freed.
    return is_mapped(kMostMmap - 2 * kPage) && is_mapped(kMostMmap - 2 * kPage);
}

}  // namespace
#endif

void keep_freed_memory([[maybe_unused]] bool keep) {
#if defined(__GLIBC__)
    static std::mutex mutex;
    static int holders = 0;
    static bool set = false;
    const std::lock_guard<std::mutex> lock(mutex);
    holders += keep ? 1 : -1;
    if (keep && holders == 1 && !is_tuned()) {
        mallopt(M_MMAP_THRESHOLD, kKeptBytes);
        mallopt(M_TRIM_THRESHOLD, kKeptBytes);
        set = true;
    } else if (holders == 0 && set) {
        mallopt(M_MMAP_THRESHOLD, kMostMmap);
        mallopt(M_TRIM_THRESHOLD, 2 * kMostMmap);
        set = false;
    }
#endif
}

}  // namespace saal
