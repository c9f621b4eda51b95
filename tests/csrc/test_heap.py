"""glibc's settings while memory is kept, and afterwards; the size that a block has says whether it is mapped."""

import subprocess
import sys

import pytest

from saal_fast._native import core

SCRIPT = """
import ctypes, importlib.util, sys

spec = importlib.util.spec_from_file_location("_core", sys.argv[2])  # without the package, and torch
_core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_core)

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.malloc_usable_size.restype = ctypes.c_size_t
libc.malloc.argtypes = libc.free.argtypes = libc.malloc_usable_size.argtypes = [ctypes.c_size_t]

def is_mapped(mib):
    block = libc.malloc(mib << 20)
    mapped = libc.malloc_usable_size(block) % 16 == 0
    libc.free(block)
    return mapped

tuned = int(sys.argv[1])
if tuned:
    libc.mallopt(-3, tuned << 20)  # M_MMAP_THRESHOLD
seen = [is_mapped(200)]
for keep in (True, True, False, True, False, False, True, False):
    _core.keep_freed_memory(keep)
    is_mapped(200)  # may be free memory of the heap, which is given back then
    seen.append(is_mapped(200))
seen += [is_mapped(2), is_mapped(2)]
print(*map(int, seen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(
    ("tuned", "seen"),
    [
        (0, "1  0 0 0 0 0 1 0 1  0 0"),  # the last one out puts it back, to where glibc's own threshold ends
        (1, "1  1 1 1 1 1 1 1 1  1 1"),  # a program's own setting stays
        (256, "0  0 0 0 0 0 0 0 0  0 0"),
    ],
)
def test_the_last_one_out_puts_glibcs_settings_back(tuned, seen):
    command = [sys.executable, "-c", SCRIPT, str(tuned), core().__file__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == seen.split()
