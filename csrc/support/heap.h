// Whether the C library keeps freed memory.
#pragma once

namespace saal {

/// With `keep`, glibc keeps freed memory for the next allocation. Without, it gives freed memory back to the
/// system, as it does by default once a program has freed large blocks. Does nothing with other C libraries,
/// nor where the user has tuned glibc by the environment.
void keep_freed_memory(bool keep);

}  // namespace saal
