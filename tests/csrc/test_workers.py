"""The threads that the C++ operations borrow from torch."""

from __future__ import annotations

import subprocess
import sys

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


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


def test_a_forked_child_has_threads_of_its_own():
    """OpenMP's don't follow into a fork: a child that waited for them would hang."""
    ran = run(FORKS)
    assert ran.returncode == 0, ran.stderr


def test_several_python_threads_at_once():
    ran = run(NESTED)
    assert ran.returncode == 0, ran.stderr
