"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def home_of(path: str | os.PathLike[str]) -> Path:
    """Expands a leading ~ or ~user to that user's home, as a shell does; an unknown user stays.

    Raises:
        TypeError: path is of another type.
        ValueError: path is empty.
    """
    if path == "":
        raise ValueError("expected the name of a folder, got an empty one; the current folder is '.'")
    return Path(os.path.expanduser(path))
