"""Folders as users name them."""

from __future__ import annotations

import os
from pathlib import Path


def home_of(path: str | os.PathLike[str]) -> Path:
    """`path`, with a leading ~ or ~user replaced by that user's home, as a shell does; where there is none it stays.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty.
    """
    if path == "":
        raise ValueError("expected the name of a folder, got an empty one; the current folder is '.'")
    return Path(os.path.expanduser(path))
