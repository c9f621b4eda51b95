from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

toolkit: str

def devices() -> tuple[int, str]: ...
def workspace_bytes(rows: int, k: int) -> int: ...
def kmeans_plusplus(
    *,
    x: int,
    dtype: Literal["float32", "float64"],
    rows: int,
    dim: int,
    row_stride: int,
    k: int,
    first: Literal["random", "argmax"],
    uniforms: NDArray[Any],
    device: int,
    stream: int,
    workspace: int,
) -> NDArray[np.int64]: ...
