"""Switches of the process, which threads hold on together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from .uninterrupted import uninterrupted


class Switch:
    """Something of the process that is on while any thread is within: the first to enter turns it on, the last to leave off.

    No signal cuts either off.

    Args:
        on: turns it on, and gives what turns it off.
    """

    def __init__(self, on: Callable[[], Callable[[], None]]) -> None:
        self._on = on
        self._off: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._entries: dict[object, int] = {}
        self._threads: frozenset[int] = frozenset()

    def within(self) -> AbstractContextManager[None]:
        """Within it, it is on."""
        entry, thread = object(), threading.get_ident()

        def enter() -> None:
            with uninterrupted(lambda: None, turn_on):
                pass

        def turn_on() -> None:
            with self._lock:
                if self._off is None:
                    self._off = self._on()
                self._entries[entry] = thread
                self._threads = frozenset(self._entries.values())

        def leave() -> None:
            with self._lock:
                self._entries.pop(entry, None)
                self._threads = frozenset(self._entries.values())
                if not self._entries and self._off is not None:
                    self._off()
                    self._off = None

        return uninterrupted(enter, leave)

    def here(self) -> bool:
        """Whether the calling thread is within."""
        return threading.get_ident() in self._threads
