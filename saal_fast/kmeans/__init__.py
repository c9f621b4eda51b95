"""k-means++ seeding: k rows spread over the data, each drawn with probability proportional to D².

D² is the squared distance to the nearest row drawn before (Arthur & Vassilvitskii, "k-means++: the advantages of careful
seeding", SODA 2007). BADGE (arXiv:1906.03671) selects samples so, over gradient embeddings, and SAAL over scores.

`kmeans_plusplus` runs in C++, or in CUDA for a tensor there; `kmeans_plusplus_reference` is the definition in plain PyTorch.
**Given the same uniforms and algorithm, all choose the same rows**, for any number of threads: what decides is computed in
float64 in one defined order (`csrc/kmeans_policy.h`), so there is no rounding to differ by. docs/seeding.md explains the
algorithms, and why they are exact.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from saal_fast import _native

from .inputs import Algorithm, Array, Data, First, Points, as_count, as_data, check_options
from .reference import kmeans_plusplus_reference
from .uniforms import as_key, draw_uniforms

__all__ = ["SeedingInfo", "draw_uniforms", "kmeans_plusplus", "kmeans_plusplus_reference"]

_log = logging.getLogger(__name__)
_NO_UNIFORMS = np.empty(0)
_Seeding: TypeAlias = "tuple[np.ndarray[Any, Any], tuple[str, float, int, int, int, int]]"


@dataclass(frozen=True)
class SeedingInfo:
    """What `kmeans_plusplus` tells of a search.

    Attributes:
        algorithm: The one that drew: "plain", "rejection" or "sorted".
        potential: Σ weights · D² once all rows are chosen, what k-means++ bounds; in units of x squared.
        acceptance: Rows accepted of the candidates drawn; 1 where nothing is ever rejected.
        refreshes: Passes over all rows.
        distances: Pairs of a row and a chosen row that were looked at; a search by passes over all rows takes N · k.
    """

    algorithm: str
    potential: float
    acceptance: float
    refreshes: int
    distances: int


@overload
def kmeans_plusplus(
    x: Points,
    k: SupportsIndex,
    *,
    first: First = ...,
    seed: int | torch.Generator | None = ...,
    weights: Array | None = ...,
    initial: Array | list[int] | None = ...,
    algorithm: Algorithm = ...,
    return_info: Literal[False] = ...,
) -> Tensor: ...


@overload
def kmeans_plusplus(
    x: Points,
    k: SupportsIndex,
    *,
    first: First = ...,
    seed: int | torch.Generator | None = ...,
    weights: Array | None = ...,
    initial: Array | list[int] | None = ...,
    algorithm: Algorithm = ...,
    return_info: Literal[True],
) -> tuple[Tensor, SeedingInfo]: ...


def kmeans_plusplus(
    x: Points,
    k: SupportsIndex,
    *,
    first: First = "random",
    seed: int | torch.Generator | None = None,
    weights: Array | None = None,
    initial: Array | list[int] | None = None,
    algorithm: Algorithm = "auto",
    return_info: bool = False,
) -> Tensor | tuple[Tensor, SeedingInfo]:
    """Chooses k different rows of x by exact D² sampling.

    When no weight is left, because the rest repeats rows already chosen, it chooses uniformly among the rows (of positive
    weight) not chosen yet. Ctrl-C ends it within a second.

    Args:
        x: Data, [N, D], or [N] for N numbers; a tensor on any device or a NumPy array, with any strides. Or a pair
            (a [N, C], h [N, D]), which stands for the rows a_i ⊗ h_i of C · D numbers without forming them: a last layer's
            gradients. float32 and float64 are used as they are, narrower floats and integers of up to 16 bits as float32,
            wider integers as float64 (exact up to 2⁵³). Distances are taken in float64; of rows from differences, so that an
            offset common to all costs no accuracy, of a pair from the factors' inner products.
        k: How many rows, 1 <= k <= N.
        first: How the first row is drawn: "random", in proportion to the weights, or "argmax", the row of largest weighted
            squared norm (of equals the first), as BADGE's published code does. Not with initial rows.
        seed: A number in [0, 2⁶⁴), or a generator, which moves on by one draw. None draws fresh entropy; the global
            generator isn't touched.
        weights: [N], >= 0, that multiply D². Rows of weight zero are never chosen.
        initial: Numbers of rows chosen before, [M], such as the labelled ones: new rows keep away from them as from each
            other, and they aren't chosen again. There must be one other row of positive weight for each of k.
        algorithm: All draw from the same distribution, each with rows of its own for the same seed. "plain" updates all
            distances after each row; "rejection" draws by stale ones and corrects for it; "sorted", for N numbers, updates
            those nearest the new row, on the CPU wherever x is. "auto" chooses by the shape.
        return_info: Whether to return a `SeedingInfo` too, whose potential takes one pass more.

    Returns:
        The rows' numbers in the order drawn, int64 [k], on the CPU; and the info, if asked for.

    Raises:
        TypeError: k is no integer, x is neither a tensor nor an array, or isn't dense or of real numbers, or seed or initial
            are none of the above.
        ValueError: x isn't one- or two-dimensional, is empty, holds NaN or inf (the first such row is named) or numbers so
            large that their squares overflow float64; weights are negative, not finite, or all zero; or an argument is out
            of range.
        ImportError: The C++ core isn't built.
    """
    check_options(first, algorithm)
    data = as_data(x, weights, initial)
    count = as_count(k, len(data))
    key = as_key(seed)
    seeding = _draw_cuda(data, count, first, key, algorithm, return_info) if data.x.device.type != "cpu" else None
    rows, counted = seeding or _draw(data, count, first, key, algorithm, return_info)
    if not return_info:
        return torch.from_numpy(rows)
    name, value, candidates, accepted, refreshes, distances = counted
    info = SeedingInfo(name, value, accepted / candidates if candidates else 1.0, refreshes, distances)
    return torch.from_numpy(rows), info


def _draw(data: Data, k: int, first: First, key: int, algorithm: Algorithm, potential: bool) -> _Seeding:
    """Draws k rows on the CPU."""
    x = data.x if data.x.device.type == "cpu" else data.x.cpu()
    seeding: _Seeding = _native.core().kmeans_plusplus(
        x.numpy(),
        k,
        first,
        key,
        _NO_UNIFORMS,
        None if data.left is None else data.left.cpu().numpy(),
        None if data.weights is None else data.weights.numpy(),
        data.initial,
        algorithm,
        torch.get_num_threads(),
        potential=potential,
    )
    return seeding


def _draw_cuda(data: Data, k: int, first: First, key: int, algorithm: Algorithm, potential: bool) -> _Seeding | None:
    """Draws k rows on the device they are on; None where the CPU shall."""
    x, left = data.x, data.left
    if x.device.type != "cuda":
        _log.warning("kmeans_plusplus copies x to the CPU: it has no code for %s", x.device.type)
        return None
    (n, dim), columns = x.shape, 0 if left is None else left.shape[1]
    way = _native.core().choose_algorithm(n, dim + columns, k, left is not None) if algorithm == "auto" else algorithm
    if way == "sorted":
        _log.info("kmeans_plusplus copies x to the CPU, which sorts it")
        return None
    cuda = _native.cuda()
    if cuda is None:
        _log.warning("kmeans_plusplus copies x to the CPU: the CUDA module is %s", _native.why_no_cuda())
        return None
    size = cuda.workspace_bytes(
        dtype=_name(x),
        rows=n,
        dim=dim,
        left_dim=columns,
        k=k,
        initial=len(data.initial),
        weighted=data.weights is not None,
    )
    space = torch.empty(size, dtype=torch.uint8, device=x.device)
    seeding: _Seeding = cuda.kmeans_plusplus(
        x=x.data_ptr(),
        dtype=_name(x),
        rows=n,
        dim=dim,
        row_stride=x.stride(0),
        k=k,
        first=first,
        key=key,
        left=0 if left is None else left.data_ptr(),
        left_dim=columns,
        left_stride=0 if left is None else left.stride(0),
        weights=None if data.weights is None else data.weights.numpy(),
        initial=data.initial,
        algorithm=way,
        potential=potential,
        device=x.device.index,
        stream=torch.cuda.current_stream(x.device).cuda_stream,
        workspace=space.data_ptr(),
    )
    return seeding


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
