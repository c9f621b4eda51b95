"""A good citizen of the interpreter: signals, and other threads."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
import torch

from saal_fast.kmeans import kmeans_plusplus


class AlarmError(Exception):
    pass


def points(n: int, dim: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


LONG_CASES: dict[str, tuple[Any, int, dict[str, Any]]] = {  # all take a minute or more
    "plain": (points(60_000, 64), 60_000, {"algorithm": "plain"}),
    "rejection": (points(60_000, 64), 60_000, {"algorithm": "rejection"}),
    "one long refresh": (points(30_000, 512), 1, {"algorithm": "rejection", "initial": torch.arange(29_000)}),
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers, as POSIX has them")
@pytest.mark.parametrize("name", LONG_CASES)
def test_signals_are_handled_meanwhile(name: str) -> None:
    def interrupt(*_: object) -> None:
        raise AlarmError

    x, k, options = LONG_CASES[name]
    before = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(AlarmError):
            kmeans_plusplus(x, k, seed=0, **options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 20.0  # seconds on a loaded machine; on a free one some 0.55


def test_other_threads_run_meanwhile() -> None:
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    worker = threading.Thread(target=kmeans_plusplus, args=(x, 1000), kwargs={"seed": 0, "algorithm": "plain"})
    worker.start()
    turns = 0
    while worker.is_alive():  # holding the interpreter's lock, the worker would leave it a turn or two
        time.sleep(0.001)
        turns += 1
    assert turns > 20
