// Whether the C library keeps freed memory.
#pragma once

namespace saal {

/// With `keep`, glibc keeps freed memory for the next allocation, until each call has been followed by one
/// without. Then it gives freed memory back to the system, as it does by default once a program has freed a
/// block of 32 MiB. Does nothing with other C libraries and allocators, nor where the program has settings of
/// its own.
void keep_freed_memory(bool keep);

}  // namespace saal
