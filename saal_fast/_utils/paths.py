"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def check_part(name: str, part: str) -> str:
    """The name of a file or folder, which leads neither out of the folder that it is in nor into another.

    Raises:
        ValueError: argument `name` is no such name.
    """
    if part in ("", ".", "..") or any(sign in part for sign in ("/", "\\", "\0")):
        raise ValueError(f"expected {name} as the name of a folder, without a path, got {part!r}")
    return part


def home_of(path: str | bytes | os.PathLike[str]) -> Path:
    """Expands a leading ~ or ~user to that user's home, as a shell does; an unknown user stays. Bytes are a name too.

    Raises:
        TypeError: path is of another type.
        ValueError: path is empty.
    """
    path = os.fsdecode(path)
    if path == "":
        raise ValueError("expected the name of a folder, got an empty one; the current folder is '.'")
    return Path(os.path.expanduser(path))
