"""k-means++ seeding: k rows spread over the data, each drawn with probability proportional to D².

D² is the squared distance to the nearest row drawn before (Arthur & Vassilvitskii, "k-means++: the
advantages of careful seeding", SODA 2007). BADGE (arXiv:1906.03671) selects samples so, over gradient
embeddings, and SAAL over scores.

`kmeans_plusplus` runs in C++, or in CUDA for a tensor there. `kmeans_plusplus_reference` is the definition,
in plain PyTorch. **Given the same uniforms, all three choose the same rows**, for any number of threads:
every sum is taken in float64 in one defined order (`csrc/kmeans_policy.h`), so there is no rounding to
differ by.
"""

from __future__ import annotations

import itertools
import logging
import operator
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saal_fast import _native

_log = logging.getLogger(__name__)

First = Literal["random", "argmax"]

# The tree of sums; as in csrc/kmeans_policy.h.
_LANES = 16
_FAN = 256

_EXACT_IN_FLOAT32 = {torch.bool, torch.int8, torch.uint8, torch.int16, torch.uint16}
_INTEGERS = _EXACT_IN_FLOAT32 | {torch.int32, torch.int64, torch.uint32, torch.uint64}


def kmeans_plusplus(
    x: Tensor | np.ndarray[Any, Any],
    k: SupportsIndex,
    *,
    first: First = "random",
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """Chooses k different rows of x by exact D² sampling.

    When no weight is left, because the rest repeats rows already chosen, it chooses uniformly among the rows
    not chosen yet.

    Args:
        x: Data, [N, D], or [N] for N numbers; a tensor on any device or a NumPy array, with any strides.
            float32 and float64 are used as they are, narrower floats and integers of up to 16 bits as
            float32, wider integers as float64 (exact up to 2⁵³). Distances are taken in float64, from
            differences, so an offset common to all rows costs no accuracy.
        k: How many rows, 1 <= k <= N.
        first: How the first row is drawn: "random", uniformly, or "argmax", the row of largest Euclidean norm
            (of equals the first), as BADGE's published code does.
        seed: A number in [0, 2⁶⁴), or a generator, which moves on by k draws. None draws fresh entropy; the
            global generator isn't touched.

    Returns:
        The rows' numbers in the order drawn, int64 [k], on the CPU.

    Raises:
        TypeError: k is no integer, x is neither a tensor nor an array, or isn't dense or of real numbers, or
            seed is none of the above.
        ValueError: x isn't one- or two-dimensional, is empty, holds NaN or inf (the first such row is named)
            or numbers so large that their squares overflow float64; k, first or seed is out of range.
        ImportError: The C++ core isn't built.
    """
    rows = _as_rows(x)
    count = _as_count(k, rows.shape[0])
    _check_first(first)
    return _draw(rows, count, first, draw_uniforms(count, seed))


def kmeans_plusplus_reference(
    x: Tensor | np.ndarray[Any, Any],
    k: SupportsIndex,
    *,
    first: First = "random",
    uniforms: Tensor | Sequence[float],
) -> Tensor:
    """What `kmeans_plusplus` computes, in plain PyTorch: the definition that tests hold the fast paths to.

    Draw t consumes uniforms[t]; a first row chosen by "argmax" leaves uniforms[0] unused. The first random
    row is ⌊u N⌋. A later one is found from the weights w = D² by walking down a tree of sums: rows, blocks
    of 256 rows, groups of 256 blocks. The target u · Σw falls into the first group whose running sum exceeds
    it, what is left of the target into one of its blocks, and then into a row. Where rounding leaves no such
    child, the last one of positive weight is taken, so a row of weight zero never is. With Σw = 0 the draw
    takes row ⌊u m⌋ of the m rows not chosen yet.

    Args:
        x: As in `kmeans_plusplus`.
        k: As in `kmeans_plusplus`.
        first: As in `kmeans_plusplus`.
        uniforms: k numbers in [0, 1), taken as float64.

    Returns:
        The rows' numbers in the order drawn, int64 [k], on the CPU.

    Raises:
        TypeError: As in `kmeans_plusplus`.
        ValueError: As in `kmeans_plusplus`, or there are not k uniforms in [0, 1).
    """
    points = _as_rows(x).cpu().double()
    n = points.shape[0]
    count = _as_count(k, n)
    _check_first(first)
    u = torch.as_tensor(uniforms, dtype=torch.float64).tolist()
    if len(u) != count:
        raise ValueError(f"expected k={count} uniforms, got {len(u)}")
    if not all(0.0 <= value < 1.0 for value in u):
        raise ValueError(f"expected uniforms in [0, 1), got {u}")
    finite = points.isfinite().all(dim=1)
    if not finite.all():
        raise ValueError(f"expected finite values in x, got NaN or inf first in row {int((~finite).nonzero()[0])}")
    norms = _lane_sum(points * points)
    _check_overflow(norms)

    largest = int((norms == norms.max()).nonzero()[0])
    chosen = [largest if first == "argmax" else min(int(u[0] * n), n - 1)]
    weights = torch.full((n,), torch.inf, dtype=torch.float64)
    for value in u[1:]:
        difference = points - points[chosen[-1]]
        weights = torch.minimum(weights, _lane_sum(difference * difference))
        row = _row_at(weights, value)
        if row is None:
            left = sorted(set(range(n)) - set(chosen))
            row = left[min(int(value * len(left)), len(left) - 1)]
        chosen.append(row)
    return torch.tensor(chosen, dtype=torch.int64)


def draw_uniforms(k: int, seed: int | torch.Generator | None) -> Tensor:
    """The k uniforms in [0, 1) that `kmeans_plusplus` draws from a seed.

    Args:
        k: How many.
        seed: As in `kmeans_plusplus`.

    Returns:
        Uniforms, float64 [k], on the CPU.

    Raises:
        TypeError: seed is no integer, generator or None.
        ValueError: seed lies outside [0, 2⁶⁴).
    """
    if isinstance(seed, torch.Generator):
        generator = seed
    else:
        generator = torch.Generator()
        if seed is None:
            generator.seed()  # from the system's entropy
        else:
            number = _as_integer("seed", seed, "an integer, a torch.Generator or None")
            if not 0 <= number < 2**64:
                raise ValueError(f"expected 0 <= seed < 2**64, got {number}")
            generator.manual_seed(number)
    return torch.rand(k, dtype=torch.float64, generator=generator, device=generator.device).cpu()


def _draw(rows: Tensor, k: int, first: First, uniforms: Tensor) -> Tensor:
    """Draws k of the rows [N, D], on the device they are on where a module was built for it."""
    if rows.device.type == "cuda":
        cuda = _native.cuda()
        if cuda is not None:
            n, dim = rows.shape
            space = torch.empty(cuda.workspace_bytes(n, k), dtype=torch.uint8, device=rows.device)
            return torch.from_numpy(
                cuda.kmeans_plusplus(
                    x=rows.data_ptr(),
                    dtype=str(rows.dtype).removeprefix("torch."),
                    rows=n,
                    dim=dim,
                    row_stride=rows.stride(0),
                    k=k,
                    first=first,
                    uniforms=uniforms.numpy(),
                    device=rows.device.index,
                    stream=torch.cuda.current_stream(rows.device).cuda_stream,
                    workspace=space.data_ptr(),
                )
            )
        _log.warning("kmeans_plusplus copies x to the CPU: the CUDA module is %s", _native.why_no_cuda())
    elif rows.device.type != "cpu":
        _log.warning("kmeans_plusplus copies x to the CPU: it has no code for %s", rows.device.type)
    return torch.from_numpy(
        _native.core().kmeans_plusplus(rows.cpu().numpy(), k, first, uniforms.numpy(), threads=torch.get_num_threads())
    )


def _as_rows(x: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Checks x and returns it as float32 or float64 [N, D], columns next to each other in memory."""
    if isinstance(x, np.ndarray):
        if not np.issubdtype(x.dtype, np.number) and x.dtype != np.bool_:
            raise TypeError(f"expected x of real numbers, got a NumPy array of dtype {x.dtype}")
        try:
            # A tensor needs the machine's byte order, writable memory and no negative strides.
            x = torch.from_numpy(np.require(x, dtype=x.dtype.newbyteorder("="), requirements=["C", "W"]))
        except TypeError as error:
            raise TypeError(f"expected x of real numbers, got a NumPy array of dtype {x.dtype}") from error
    if not isinstance(x, Tensor):
        raise TypeError(f"expected x to be a tensor or a NumPy array, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"expected x to be dense, got {x.layout}")
    if x.ndim not in (1, 2):
        raise ValueError(f"expected x of shape [N] or [N, D], got {list(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"expected x of at least one row and one column, got {list(x.shape)}")
    if x.dtype in _INTEGERS:
        dtype = torch.float32 if x.dtype in _EXACT_IN_FLOAT32 else torch.float64
    elif x.dtype.is_floating_point:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    else:
        raise TypeError(f"expected x of real numbers, got {x.dtype}")
    rows = x.detach().to(dtype)
    if rows.ndim == 1:
        rows = rows[:, None]
    return rows if rows.shape[1] == 1 or rows.stride(1) == 1 else rows.contiguous()


def _as_integer(name: str, value: object, expected: str) -> int:
    """The value as an int; True and 1.0 are none."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass  # a tensor has __index__, whatever it holds
    raise TypeError(f"expected {name} to be {expected}, got {value!r} ({type(value).__name__})")


def _as_count(k: SupportsIndex, n: int) -> int:
    count = _as_integer("k", k, "an integer")
    if not 1 <= count <= n:
        raise ValueError(f"expected 1 <= k <= {n} (the number of rows), got k={count}")
    return count


def _check_first(first: str) -> None:
    if first not in ("random", "argmax"):
        raise ValueError(f"expected first='random' or 'argmax', got {first!r}")


def _check_overflow(sums: Tensor) -> None:
    if not sums.isfinite().all():
        raise ValueError(
            "expected x small enough for its squared distances and their sum to fit float64, got an overflow; scale x down"
        )


def _lane_sum(terms: Tensor) -> Tensor:
    """Sums the last dimension: lane l adds terms l, l + 16, ... in order; then lanes are folded in halves.

    Args:
        terms: float64 [..., n].

    Returns:
        float64 [...].
    """
    terms = F.pad(terms, (0, -terms.shape[-1] % _LANES))
    lanes = torch.zeros_like(terms[..., :_LANES])
    for start in range(0, terms.shape[-1], _LANES):
        lanes = lanes + terms[..., start : start + _LANES]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes.squeeze(-1)


def _parent_sums(weights: Tensor) -> Tensor:
    """Sums of 256 children each: float64 [n] to [⌈n / 256⌉]."""
    return _lane_sum(F.pad(weights, (0, -weights.shape[0] % _FAN)).view(-1, _FAN))


def _row_at(weights: Tensor, u: float) -> int | None:
    """The row that the uniform u aims at under float64 weights [N]; None where all are zero."""
    blocks = _parent_sums(weights)
    groups = _parent_sums(blocks)
    total = list(itertools.accumulate(groups.tolist()))[-1]
    _check_overflow(torch.tensor(total))
    if total == 0.0:
        return None
    index, rest = 0, u * total
    for level, fan in ((groups, len(groups)), (blocks, _FAN), (weights, _FAN)):
        children = level[index * fan : (index + 1) * fan].tolist()
        child, rest = _descend(children, rest)
        index = index * fan + child
    return index


def _descend(weights: list[float], target: float) -> tuple[int, float]:
    """The first child whose running sum exceeds target, else the last with weight; and what is left."""
    running = list(itertools.accumulate(weights))
    child = bisect_right(running, target)
    if child == len(weights):
        child = max(i for i, weight in enumerate(weights) if weight > 0.0)
    return child, target - (running[child - 1] if child else 0.0)
