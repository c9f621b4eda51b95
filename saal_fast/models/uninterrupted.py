"""Context managers that are left to the end, whatever signals come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from .._native import core

T = TypeVar("T")


def uninterrupted(enter: Callable[[], T], leave: Callable[[], BaseException | None]) -> AbstractContextManager[T]:
    """A context manager that calls `enter`, and on leaving `leave`, which nothing that a signal handler raises can cut off.

    Handlers of signals that come meanwhile (Ctrl-C, `signal.alarm`, a DataLoader whose worker died) run right afterwards.
    Where another exception cuts `leave` off (one that a debugger or another thread throws in) it is called again, until it
    comes to its end, and the exception is raised then.

    Args:
        enter: may be cut off; `leave` is called then too.
        leave: undoes what `enter` has done so far, and may be called again at any time. It runs on a thread of its own where
            this is the main one. An exception that it returns is raised, or becomes a note of the one that there is already.
    """
    apart = threading.current_thread() is threading.main_thread()  # handlers run on no other thread
    manager: AbstractContextManager[T] = core().Uninterrupted(enter, leave, apart)
    return manager
