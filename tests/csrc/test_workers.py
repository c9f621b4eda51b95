"""The threads that torch lends to the C++ operations, and those that stand in for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
COMPILER = shutil.which("gcc") or shutil.which("clang")
CXX = shutil.which("g++") or shutil.which("clang++")

FORKS = """
import os, torch
from saal_fast import _native
torch.set_num_threads(2)
x = torch.randn(16, 64, 32, 32).contiguous(memory_format=torch.channels_last).numpy()
weight = torch.randn(64, 64, 3, 3).numpy()
outs = torch.empty((2, 16, 64, 32, 32)).movedim(2, 4).contiguous().movedim(4, 2).numpy()
core = _native.core()
core.winograd_conv(x, weight, outs[0], (1, 1), False, 2)
child = os.fork()
core.winograd_conv(x, weight, outs[1], (1, 1), False, 2)  # nothing of torch's own, which hangs in a child
same = (outs[0] == outs[1]).all()
if child == 0:
    os._exit(0 if same else 3)
assert same
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

NESTED = """
import threading, torch
from saal_fast.ops import winograd
torch.set_num_threads(2)
x, weight = torch.randn(16, 64, 32, 32), torch.randn(64, 64, 3, 3)
want, got = winograd.conv(x, weight, [1] * 4), [None] * 4
def work(i):
    got[i] = winograd.conv(x, weight, [1] * 4)
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert all(torch.equal(one, want) for one in got)
"""

LENDERS = """
import ctypes, sys, torch
from saal_fast import _native
core = _native.core()
fake, torchs = sys.argv[1:]
ctypes.CDLL(fake)
x = torch.randn(5, 64, 32, 32).contiguous(memory_format=torch.channels_last).numpy()
weight = torch.randn(64, 64, 3, 3).numpy()
outs = []
for library, threads in [("/nowhere.so", 1), ("/nowhere.so", 3), (fake, 3), (torchs, 3)]:
    lent = core.use_torch_threads(library)
    assert lent == (library == fake or library == torchs and torch.__version__ >= (2, 10)), library
    outs.append(torch.empty(5, 32, 32, 64).permute(0, 3, 1, 2))
    core.winograd_conv(x, weight, outs[-1].numpy(), (1, 1), False, threads)
assert all(torch.equal(out, outs[0]) for out in outs)
core.use_torch_threads(fake)
ctypes.c_int.in_dll(ctypes.CDLL(fake), "status").value = 1
try:
    core.winograd_conv(x, weight, outs[0].numpy(), (1, 1), False, 3)
except RuntimeError as error:
    assert str(error) == "torch_parallel_for failed"
else:
    raise AssertionError("a failure of torch_parallel_for went unseen")
"""

# Convolutions whose threads reserve some 20 MB each, with less and less memory left to the process.
NO_MEMORY = """
import resource, sys, torch
from saal_fast import _native
core = _native.core()
if sys.argv[1] == "own":
    core.use_torch_threads("/nowhere.so")
torch.set_num_threads(2)
x = torch.randn(2, 16384, 8, 8).contiguous(memory_format=torch.channels_last).numpy()
weight = torch.randn(16, 16384, 3, 3).numpy()
out = torch.empty(2, 8, 8, 16).permute(0, 3, 1, 2).numpy()
core.winograd_conv(x, weight, out, (1, 1), False, 2)
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
failed = 0
for megabytes in range(20, 260, 10):  # with less, the C library itself cannot begin a thread
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, hard))
    try:
        core.winograd_conv(x, weight, out, (1, 1), False, 2)
    except MemoryError:
        failed += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert failed > 3, failed
core.winograd_conv(x, weight, out, (1, 1), False, 2)
"""

# Calls the function once for all, as torch does within a parallel region.
FAKE = """
#include <stdint.h>
int status = 0;
int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain, void (*f)(int64_t, int64_t, void*), void* context) {
    f(begin, end, context);
    return status;
}
"""


def run(program: str, *arguments: object) -> None:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_forked_child_has_threads_of_its_own() -> None:
    """Torch's don't follow into a fork: a child that waited for them would hang."""
    run(FORKS)


@pytest.mark.slow
def test_several_python_threads_at_once() -> None:
    run(NESTED)


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs a C compiler on the PATH, and Linux")
def test_results_do_not_depend_on_who_lends_threads(tmp_path: Path) -> None:
    source, library = tmp_path / "fake.c", tmp_path / "fake.so"
    source.write_text(FAKE)
    subprocess.run([str(COMPILER), "-shared", "-fPIC", source, "-o", library], check=True)
    run(LENDERS, library, Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux has it")
@pytest.mark.parametrize("threads", ["torch", pytest.param("own", marks=pytest.mark.slow)])
def test_no_memory_in_a_thread_is_a_memory_error(threads: str) -> None:
    run(NO_MEMORY, threads)


@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler on the PATH")
def test_exceptions_reach_the_caller(tmp_path: Path) -> None:
    program, csrc = tmp_path / "check", HERE.parent.parent / "csrc"
    sources = [HERE / "workers_check.cpp", csrc / "support" / "workers.cpp"]
    command = [
        str(CXX),
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        f"-I{csrc}",
        *sources,
        "-o",
        program,
        "-ldl",
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
