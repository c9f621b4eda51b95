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
    constexpr int kDefaultMmap = 32 << 20;  // the end of glibc's own moving threshold; it trims at twice that
    constexpr int kKeptBytes = 1 << 30;
    mallopt(M_MMAP_THRESHOLD, keep ? kKeptBytes : kDefaultMmap);
    mallopt(M_TRIM_THRESHOLD, keep ? kKeptBytes : 2 * kDefaultMmap);
#endif
}

}  // namespace saal
