"""A progress bar that by default appears only for long work at a terminal or in a notebook."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BEFORE_BAR = 3.0
"""Seconds of work before a bar appears on its own."""


class Bar(Protocol):
    """What `bar` yields."""

    def update(self, n: int = 1, /) -> object:
        """Counts `n` more samples."""


class _NoBar:
    def update(self, n: int = 1, /) -> None:
        pass


@contextmanager
def bar(total: int | None, show: bool | None = None, label: str = "scoring", unit: str = " samples") -> Iterator[Bar]:
    """Opens a progress bar, whose `update(n)` counts n samples.

    Args:
        total: Number of samples; None if unknown.
        show: True shows the bar, False shows none. None shows it for work longer than `SECONDS_BEFORE_BAR`, if tqdm is
            installed and stderr is a terminal or a notebook.
        label: Name of the work.
        unit: Name of what is counted.

    Yields:
        The bar, shown or not.

    Raises:
        ImportError: `show` is True and tqdm is missing.
    """
    installed = importlib.util.find_spec("tqdm") is not None
    if show and not installed:
        raise ImportError("a progress bar needs tqdm: `pip install tqdm`")
    if show or (show is None and installed and _watched()):
        from tqdm.auto import tqdm  # noqa: PLC0415 - optional, and slow to import where no bar is shown

        delay = 0.0 if show else SECONDS_BEFORE_BAR
        with tqdm(total=total, desc=label, unit=unit, delay=delay, dynamic_ncols=True) as shown:
            yield shown
    else:
        yield _NoBar()


def _watched() -> bool:
    """Whether stderr is a terminal, or Python runs behind a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
