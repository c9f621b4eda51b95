from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

toolkit: str

def devices() -> tuple[int, str]: ...
def workspace_bytes(
    *,
    dtype: str,
    rows: int,
    dim: int,
    left_dim: int = ...,
    k: int,
    initial: int = ...,
    weighted: bool = ...,
) -> int: ...
def kmeans_plusplus(
    *,
    x: int,
    dtype: str,
    rows: int,
    dim: int,
    row_stride: int,
    k: int,
    first: Literal["random", "argmax"],
    key: int,
    left: int = ...,
    left_dim: int = ...,
    left_stride: int = ...,
    weights: NDArray[Any] | None = ...,
    initial: list[int] = ...,
    algorithm: str,
    refresh_every: int = ...,
    potential: bool = ...,
    device: int,
    stream: int,
    workspace: int,
) -> tuple[NDArray[np.int64], tuple[str, float, int, int, int, int]]: ...
