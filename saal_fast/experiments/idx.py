"""Reads idx files, the format of MNIST (http://yann.lecun.com/exdb/mnist): magic number, big-endian lengths, bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

UNSIGNED_BYTE = 8
"""Type code of uint8 in the magic number."""


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Reads an idx file of unsigned bytes.

    Args:
        path: the file, compressed by gzip if its name ends in ".gz".
        ndim: number of dimensions that the file must have.

    Returns:
        Its content, in the shape that its header gives; read-only.

    Raises:
        ValueError: the file is cut short, or of another kind.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    start = 4 + 4 * ndim
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, ndim]) or len(content) != start + math.prod(shape):
        raise ValueError(f"{path} is not a whole idx file of unsigned bytes in {ndim} dimensions")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
