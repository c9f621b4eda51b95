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

/// Whether a block of this size comes from a mapping of its own. A block of glibc's heap has eight bytes
/// after its end that serve it too. Other allocators' sizes are multiples of 16, so that every block seems
/// mapped.
bool is_mapped(std::size_t bytes) {
    void* volatile block = std::malloc(bytes);
    if (block == nullptr) return false;
    const bool mapped = malloc_usable_size(block) % 16 == 0;
    std::free(block);
    return mapped;
}

/// Whether the program has settings of its own: by the environment, or by mallopt, which stops glibc's
/// threshold.
bool is_tuned() {
    for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
        if (std::getenv(name) != nullptr) return true;
    if (!is_mapped(kMostMmap + 2 * kPage)) return true;
    is_mapped(kMostMmap - 2 * kPage);  // once freed, it has moved a threshold that still moves
    return is_mapped(kMostMmap - 2 * kPage);
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
