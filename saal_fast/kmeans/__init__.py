"""k-means++ seeding: k rows spread over the data, each drawn with probability proportional to D².

D² is the squared distance to the nearest row drawn before (Arthur & Vassilvitskii, "k-means++: the advantages of careful
seeding", SODA 2007). BADGE (arXiv:1906.03671) selects samples this way over gradient embeddings, and SAAL over scores.

`kmeans_plusplus` runs in C++, or in CUDA for a CUDA tensor; `kmeans_plusplus_reference` is the definition in plain PyTorch.
**Given the same uniforms and algorithm, all choose the same rows**, for any number of threads, because every number that
decides is computed in float64 in one defined order (`csrc/kmeans/policy.h`). docs/seeding.md explains the algorithms, and
why they are exact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor

from saal_fast import _native

from .._utils.eager import outside_compile
from .._utils.proofs import Proof, proven
from .inputs import Algorithm, Array, Data, First, Points, as_count, as_data, check_options
from .reference import kmeans_plusplus_reference
from .uniforms import draw_uniforms, seed_to_key

__all__ = ["SeedingInfo", "draw_uniforms", "kmeans_plusplus", "kmeans_plusplus_reference"]

_log = logging.getLogger(__name__)
_NO_UNIFORMS = np.empty(0)


@dataclass(frozen=True)
class SeedingInfo:
    """Statistics of one `kmeans_plusplus` search.

    Attributes:
        algorithm: The algorithm used: "plain", "rejection" or "sorted".
        potential: Σ weights · D² after the last choice (the quantity k-means++ bounds); in units of x squared.
        acceptance: Share of the drawn candidates that were accepted; 1 for algorithms without rejection.
        refreshes: Passes over all rows.
        distances: Row-centre distances computed; passes over all rows compute N · k.
    """

    algorithm: str
    potential: float
    acceptance: float
    refreshes: int
    distances: int


class _Counts(NamedTuple):
    """What a compiled search counts, in the order in which it returns them."""

    algorithm: str
    potential: float
    candidates: int
    accepted: int
    refreshes: int
    distances: int


class _Seeding(NamedTuple):
    """What a compiled search returns."""

    rows: np.ndarray[Any, Any]  # int64 [k]
    counts: _Counts

    @classmethod
    def of(cls, rows: np.ndarray[Any, Any], counts: tuple[str, float, int, int, int, int]) -> _Seeding:
        return cls(rows, _Counts(*counts))


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


@outside_compile
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

    When no weight is left, because the other rows repeat chosen ones, it chooses uniformly among the rows (of positive
    weight) not chosen yet. Ctrl-C interrupts it within a second.

    Args:
        x: Data, [N, D], or [N] for N numbers; a tensor on any device or a NumPy array, with any strides. Or a pair
            (a [N, C], h [N, D]), which stands for the rows a_i ⊗ h_i of C · D numbers without forming them: a last layer's
            gradients. float32 and float64 are used as they are, narrower floats and integers of up to 16 bits as float32,
            wider integers as float64 (exact up to 2⁵³). Distances are computed in float64: for rows from differences, so
            that a common offset costs no accuracy; for a pair from the factors' inner products.
        k: Number of rows to draw, 1 <= k <= N.
        first: How to draw the first row: "random", in proportion to the weights, or "argmax", the row of largest weighted
            squared norm (of equal ones the first), as in BADGE's published code. Not with initial rows.
        seed: A number in [0, 2⁶⁴), or a generator, which advances by one draw. None draws fresh entropy; the global
            generator isn't touched.
        weights: Factors of D², [N], >= 0. Rows of weight zero are never chosen.
        initial: Indices of rows chosen before, [M], such as the labelled ones: new rows keep away from them as from each
            other, and they aren't chosen again. At least k other rows must have positive weight.
        algorithm: All draw from the same distribution, but the rows for a seed differ. "plain" updates all distances after
            each row; "rejection" draws by stale distances and corrects for that; "sorted", for N numbers, updates those
            nearest the new row, on the CPU wherever x is. "auto" chooses by the shape.
        return_info: Whether to return a `SeedingInfo` too; its potential takes one more pass.

    Returns:
        The rows' indices in the order drawn, int64 [k], on the CPU; and the info, if asked for.

    Raises:
        TypeError: k is no integer; x is neither a tensor nor an array, isn't dense or isn't of real numbers; or seed or
            initial has another type.
        ValueError: x isn't one- or two-dimensional, is empty, holds NaN or inf (the first such row is named) or numbers so
            large that their squares overflow float64; weights are negative, not finite, or all zero; or an argument is out
            of range.
        ImportError: The C++ core isn't built.
    """
    check_options(first, algorithm)
    data = as_data(x, weights, initial)
    count = as_count(k, len(data))
    key = seed_to_key(seed)
    seeding = _draw_cuda(data, count, first, key, algorithm, return_info) if data.x.device.type != "cpu" else None
    seeding = seeding or _draw(data, count, first, key, algorithm, return_info)
    rows, counts = torch.from_numpy(seeding.rows), seeding.counts
    if not return_info:
        return rows
    acceptance = counts.accepted / counts.candidates if counts.candidates else 1.0
    return rows, SeedingInfo(counts.algorithm, counts.potential, acceptance, counts.refreshes, counts.distances)


def _draw(data: Data, k: int, first: First, key: int, algorithm: Algorithm, potential: bool) -> _Seeding:
    """Draws k rows on the CPU."""
    x = data.x if data.x.device.type == "cpu" else data.x.cpu()
    rows, counts = _native.core().kmeans_plusplus(
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
    return _Seeding.of(rows, counts)


def _draw_cuda(data: Data, k: int, first: First, key: int, algorithm: Algorithm, potential: bool) -> _Seeding | None:
    """Draws k rows on x's own device; None if the CPU must draw them."""
    x, left = data.x, data.left
    if x.device.type != "cuda":
        _log.warning("kmeans_plusplus copies x to the CPU: it has no code for %s", x.device.type)
        return None
    (n, dim), columns = x.shape, 0 if left is None else left.shape[1]
    chosen = _native.core().choose_algorithm(n, dim + columns, k, left is not None) if algorithm == "auto" else algorithm
    if chosen == "sorted":
        _log.info("kmeans_plusplus copies x to the CPU, which sorts it")
        return None
    cuda = _native.cuda()
    if cuda is None:
        _log.warning("kmeans_plusplus copies x to the CPU: the CUDA module is %s", _native.why_no_cuda())
        return None
    if not proven(_PROOF, x.device):
        return None
    return _search_cuda(data, k, first, key, chosen, potential)


def _search_cuda(data: Data, k: int, first: First, key: int, algorithm: str, potential: bool) -> _Seeding:
    """Draws k rows by the CUDA module."""
    cuda: Any = _native.cuda()
    x, left = data.x, data.left
    (n, dim), columns = x.shape, 0 if left is None else left.shape[1]
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
    rows, counts = cuda.kmeans_plusplus(
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
        algorithm=algorithm,
        potential=potential,
        device=x.device.index,
        stream=torch.cuda.current_stream(x.device).cuda_stream,
        workspace=space.data_ptr(),
    )
    return _Seeding.of(rows, counts)


def _trials(device: torch.device) -> Iterator[tuple[Tensor, Tensor | None, Algorithm]]:
    """Data and algorithms on which the CUDA module proves itself: rows and pairs of both types."""
    generator = torch.Generator("cpu").manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(700, 5, dtype=torch.float64, generator=generator, device="cpu").to(device, dtype)
        for left in (None, x[:, :3].contiguous()):
            yield x, left, "plain"
            yield x, left, "rejection"


def _trial(x: Tensor, left: Tensor | None, algorithm: Algorithm) -> Tensor:
    return torch.from_numpy(_search_cuda(Data(x, left, None, []), 30, "random", 7, algorithm, False).rows)


def _trial_on_cpu(x: Tensor, left: Tensor | None, algorithm: Algorithm) -> Tensor:
    data = Data(x.cpu(), None if left is None else left.cpu(), None, [])
    return torch.from_numpy(_draw(data, 30, "random", 7, algorithm, False).rows)


_PROOF = Proof("kmeans_plusplus", _trials, _trial, _trial_on_cpu)


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
