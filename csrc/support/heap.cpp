#include "support/heap.h"

#include <cstdlib>
#include <initializer_list>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace saal {

void keep_freed_memory([[maybe_unused]] bool keep) {
#if defined(__GLIBC__)
    for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
        if (std::getenv(name) != nullptr) return;
    constexpr int kMmap = 32 << 20;  // where glibc's own moving threshold ends; trimming starts at twice that
    constexpr int kKept = 1 << 30;
    mallopt(M_MMAP_THRESHOLD, keep ? kKept : kMmap);
    mallopt(M_TRIM_THRESHOLD, keep ? kKept : 2 * kMmap);
#endif
}

}  // namespace saal
