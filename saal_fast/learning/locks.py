"""A lock on a folder, and errors of the operating system that say what was tried."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LockedError(RuntimeError):
    """Another process, or another learner of this one, is at work in the folder."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a file for one user at a time; the operating system frees it when the process ends, even by a kill.

    Raises:
        LockedError: another process, or another part of this one, has locked it.
        OSError: the file cannot be created.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"another process is at work in {path.parent}") from error
    except OSError as error:
        raise explained(error, f"cannot write into the folder {path.parent}") from error
    try:
        yield
    finally:
        lock.release()


def explained(error: OSError, attempt: str) -> OSError:
    """An error of the same kind whose message begins with what was attempted."""
    return OSError(error.errno, f"{attempt}: {error.strerror}")
