// What becomes of memory that is freed.
#pragma once

namespace saal {

/// While `keep`, the C library keeps freed memory for the next allocation instead of giving it back to the
/// system; else it does as glibc by itself comes to do once large blocks have been freed. Nothing happens
/// where the library is another, or the user has tuned it by the environment.
void keep_freed_memory(bool keep);

}  // namespace saal
