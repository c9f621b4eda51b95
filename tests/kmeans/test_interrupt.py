"""Ctrl-C in a process of its own: KeyboardInterrupt comes within a second, whichever way rows are drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

SEARCH = """
import sys, torch
from saal_fast.kmeans import kmeans_plusplus
way = sys.argv[1]
torch.set_num_threads(2)
def points(n, dim):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))
x, k, options = {  # all take a minute or more
    "plain": lambda: (points(60_000, 64), 60_000, {"algorithm": "plain"}),
    "rejection": lambda: (points(60_000, 64), 60_000, {"algorithm": "rejection"}),
    "one long refresh": lambda: (points(30_000, 512), 1, {"algorithm": "rejection", "initial": torch.arange(29_000)}),
    "sorted": lambda: (points(3_000_000, 1), 3_000_000, {"algorithm": "sorted"}),
    "sorted, 30 million": lambda: (points(30_000_000, 1).double(), 30_000_000, {"algorithm": "sorted"}),
    "a pair, plain": lambda: ((points(60_000, 10), points(60_000, 64)), 60_000, {"algorithm": "plain"}),
    "a pair, rejection": lambda: ((points(60_000, 10), points(60_000, 64)), 60_000, {"algorithm": "rejection"}),
    "weights": lambda: (points(60_000, 64), 60_000, {"weights": torch.rand(60_000) + 0.1}),
}[way]()
print("begins", flush=True)
try:
    kmeans_plusplus(x, k, seed=0, **options)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


WAYS = ["rejection", "sorted"]
WAYS += [
    pytest.param(way, marks=pytest.mark.slow)  # each is a process, which imports torch
    for way in ("plain", "one long refresh", "a pair, plain", "a pair, rejection", "weights")
]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT, as POSIX has it")
@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_is_answered_within_a_second(way: str) -> None:
    interrupt(way, 0.4)


@pytest.mark.slow  # 2 GB
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT, as POSIX has it")
@pytest.mark.parametrize("after", [0.4, 0.9, 1.4, 1.9, 2.4, 2.9, 3.4])
def test_ctrl_c_while_many_numbers_are_sorted(after: float) -> None:
    interrupt("sorted, 30 million", after)


def interrupt(way: str, after: float) -> None:
    """Sends Ctrl-C some seconds after the search has begun."""
    command = [sys.executable, "-c", SEARCH, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            time.sleep(after)
            assert process.poll() is None  # the search is under way
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            assert time.monotonic() - sent < 3.0  # a second, and what a loaded machine adds; on a free one some 0.1
        finally:
            process.kill()
