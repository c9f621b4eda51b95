from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

compiler: str
flags: str
cuda: str

_Pair = Sequence[int]
_Window = tuple[_Pair, _Pair, _Pair, _Pair, int]  # kernel, stride, zeros before, dilation; groups

def use_torch_threads(library: str) -> bool: ...
def keep_freed_memory(keep: bool) -> None: ...

class Uninterrupted:
    def __init__(self, enter: Callable[[], Any], leave: Callable[[], BaseException | None], apart: bool) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, kind: Any, value: Any, trace: Any) -> None: ...

def choose_algorithm(rows: int, width: int, k: int, factored: bool) -> str: ...
def built_isas() -> list[str]: ...
def usable_isas() -> list[str]: ...
def kmeans_plusplus(
    x: NDArray[np.float32] | NDArray[np.float64],
    k: int,
    first: Literal["random", "argmax"],
    key: int,
    given: NDArray[Any],
    left: NDArray[np.float32] | NDArray[np.float64] | None = None,
    weights: NDArray[np.float64] | None = None,
    initial: Sequence[int] = ...,
    algorithm: Literal["auto", "plain", "rejection", "sorted"] = "auto",
    threads: int = 1,
    isa: str = "",
    refresh_every: int = -1,
    potential: bool = False,
) -> tuple[NDArray[np.int64], tuple[str, float, int, int, int, int]]: ...
def diagonal_sums_f32(
    pixels: int,
    out: int,
    batch: int,
    shape: Sequence[int],
    kernel: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    threads: int,
    isa: str = "",
) -> None: ...
def diagonal_sums_f64(
    pixels: int,
    out: int,
    batch: int,
    shape: Sequence[int],
    kernel: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    threads: int,
    isa: str = "",
) -> None: ...
def tile_norm(
    a: NDArray[Any],
    g: NDArray[Any],
    weight: NDArray[Any],
    window: _Window,
    map: str,
    q: float,
    materialized: NDArray[Any] | None = None,
    threads: int = 1,
    isa: str = "",
) -> NDArray[Any]: ...
def tile_apply(
    a: NDArray[Any],
    g: NDArray[Any],
    x: NDArray[Any],
    weight: NDArray[Any],
    scales: NDArray[Any],
    out: NDArray[Any],
    window: _Window,
    map: str,
    q: float,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def materialized_size(outputs: int, inputs: int, groups: int) -> int: ...
def apply_materialized(
    materialized: NDArray[Any],
    x: NDArray[Any],
    weight: NDArray[Any],
    scales: NDArray[Any],
    out: NDArray[Any],
    window: _Window,
    map: str,
    q: float,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def winograd_channels_fit(inputs: int, outputs: int) -> bool: ...
def winograd_conv(
    x: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    before: Sequence[int],
    backward: bool = False,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def depthwise_fits(kernel_width: int) -> bool: ...
def depthwise_apply(
    x: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    threads: int = 1,
    isa: str = "",
) -> None: ...
def depthwise_gradient(
    x: NDArray[Any],
    g: NDArray[Any],
    gradient: NDArray[Any],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    threads: int = 1,
    isa: str = "",
) -> None: ...
def layer_norm(
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any],
    eps: float,
    y: NDArray[Any],
    mean: NDArray[Any],
    rstd: NDArray[Any],
    threads: int = 1,
    isa: str = "",
) -> None: ...
def layer_norm_back(
    x: NDArray[Any],
    g: NDArray[Any],
    weight: NDArray[Any],
    mean: NDArray[Any],
    rstd: NDArray[Any],
    gx: NDArray[Any],
    sums: NDArray[Any],
    threads: int = 1,
    isa: str = "",
) -> None: ...
