"""Drawn calls of the C++ core, in a process of their own: each succeeds or raises, and none ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "fuzz_core.py"


def fuzz(seed: int, draws: int) -> None:
    command = [sys.executable, "-X", "faulthandler", str(PROGRAM), str(seed), str(draws)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert ran.returncode == 0, f"exit status {ran.returncode}\n{ran.stderr[-5000:]}"
    done, refused = map(int, ran.stdout.split())
    assert min(done, refused) > draws / 10
    assert done + refused == draws


def test_some_calls() -> None:
    fuzz(0, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_calls(seed: int) -> None:
    fuzz(seed, 6000)
