"""A lock on a folder, and errors of the system that say what was tried."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LockedError(RuntimeError):
    """Another process, or another learner of this one, is at work in the folder."""


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds a file for this process; the system lets go of it when the process ends, however that happens.

    Raises:
        LockedError: it is held.
        OSError: it cannot be made.
    """
    import fcntl  # noqa: PLC0415 - where there is none, all but folders still works

    try:
        file = path.open("a")
    except OSError as error:
        raise told_of(error, f"cannot write into the folder {path.parent}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"another process is at work in {path.parent}") from error
        yield


def told_of(error: OSError, what: str) -> OSError:
    """The same error, with what was tried."""
    return OSError(error.errno, f"{what}: {error.strerror}")
