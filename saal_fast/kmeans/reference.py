"""The definition of k-means++ seeding in plain PyTorch, which tests compare the fast paths with."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor

from .inputs import Algorithm, Array, Data, First, Points, as_count, as_data, check_options

# The tree of sums, as in csrc/kmeans/policy.h.
_LANES = 16
_FAN = 256


def kmeans_plusplus_reference(
    x: Points,
    k: SupportsIndex,
    *,
    first: First = "random",
    weights: Array | None = None,
    initial: Array | list[int] | None = None,
    algorithm: Algorithm = "plain",
    uniforms: Tensor | Sequence[float],
    refresh_every: int = -1,
) -> Tensor:
    """Defines what `kmeans_plusplus` computes.

    With weights s and centres C so far, row i has the weight w_i = s_i · min_{c ∈ C} ‖x_i − c‖². A uniform u aims at u · Σw
    and walks down a tree of sums: rows, blocks of 256 rows, groups of 256 blocks. The target falls into the first group
    whose running sum exceeds it, the remainder into one of its blocks, and then into a row. If rounding leaves no such
    child, the last one of positive weight is taken, so a row of weight zero never is. If Σw = 0, a draw takes row ⌊u m⌋ of
    the m rows of positive s not chosen yet.

    "plain": draw t consumes uniforms[t]. A first row by "argmax" leaves uniforms[0] unused; a random one is ⌊u N⌋, or the
    row that u aims at among the weights s. "sorted" is "plain" over the sorted numbers.
    "rejection": w does not count the pending centres. Candidate m is drawn by uniforms[2m + 1] and accepted if uniforms[2m +
    2] · w is less than its weight by every pending centre; w includes them once `_Refresh` says so. After m candidates,
    draws with Σw = 0 consume uniforms[2m + 1] and the following.

    Args:
        x: As in `kmeans_plusplus`.
        k: As in `kmeans_plusplus`.
        first: As in `kmeans_plusplus`.
        weights: As in `kmeans_plusplus`.
        initial: As in `kmeans_plusplus`.
        algorithm: "plain", "rejection" or "sorted"; there is no "auto" here.
        uniforms: Numbers in [0, 1), converted to float64; k for "plain", as many as needed for "rejection".
        refresh_every: Refresh w at this number of pending centres; 0 only after 64 N rejections, -1 by `_Refresh`'s rule.

    Returns:
        The rows' indices in the order drawn, int64 [k], on the CPU.

    Raises:
        TypeError: As in `kmeans_plusplus`.
        ValueError: As in `kmeans_plusplus`, or the uniforms don't suffice or lie outside [0, 1).
    """
    check_options(first, algorithm)
    if algorithm == "auto":
        raise ValueError("expected algorithm='plain', 'rejection' or 'sorted', got 'auto'")
    data = as_data(x, weights, initial)
    count = as_count(k, len(data))
    numbers = torch.as_tensor(uniforms, dtype=torch.float64, device="cpu")
    if not bool(((numbers >= 0.0) & (numbers < 1.0)).all()):
        raise ValueError(f"expected uniforms in [0, 1), got {numbers.tolist()}")
    if algorithm != "rejection" and len(numbers) < count:
        raise ValueError(f"expected k={count} uniforms, got {len(numbers)}")
    if algorithm == "sorted":
        if data.left is not None or data.x.shape[1] != 1:
            got = "a pair" if data.left is not None else f"{data.x.shape[1]} columns"
            raise ValueError(f"expected x of one number a row for algorithm='sorted', got {got}")
        order = data.x[:, 0].cpu().argsort(stable=True)
        place = order.argsort()
        data = Data(
            data.x.cpu()[order],
            None,
            None if data.weights is None else data.weights[order],
            [int(place[row]) for row in data.initial],
        )
        return order[_rows(_Search(data, count, first, numbers).plain())]
    search = _Search(data, count, first, numbers)
    return _rows(search.rejection(refresh_every) if algorithm == "rejection" else search.plain())


def _rows(chosen: list[int]) -> Tensor:
    return torch.tensor(chosen, dtype=torch.int64, device="cpu")


class _Search:
    def __init__(self, data: Data, k: int, first: First, uniforms: Tensor) -> None:
        self.k, self.initial, self.u = k, data.initial, uniforms.tolist()
        self.right = data.x.cpu().double()
        self.left = None if data.left is None else data.left.cpu().double()
        self.n = len(self.right)
        self.sample = torch.ones(self.n, dtype=torch.float64, device="cpu") if data.weights is None else data.weights
        self.weighted = data.weights is not None
        _check_choice(data, k, first)
        finite = self.right.isfinite().all(dim=1)
        if self.left is not None:
            finite &= self.left.isfinite().all(dim=1)
        if not finite.all():
            raise ValueError(f"expected finite values in x, got NaN or inf first in row {int((~finite).nonzero()[0])}")
        self.norms = _lane_sum(self.right * self.right)
        if self.left is not None:
            self.norms = _lane_sum(self.left * self.left) * self.norms
            _check_overflow(self.norms)
        self.weights = torch.full((self.n,), torch.inf, dtype=torch.float64, device="cpu")
        self.chosen: list[int] = []
        if not self.initial:
            self.chosen.append(self.first_row(first))
        for row in self.initial or self.chosen:
            self.fold(row)

    def uniform(self, number: int) -> float:
        if number >= len(self.u):
            raise ValueError(f"expected more than {len(self.u)} uniforms: the draws ask for number {number}")
        return float(self.u[number])

    def first_row(self, first: First) -> int:
        if first == "argmax":
            _check_overflow(self.norms)
            norms = torch.where(self.sample > 0, self.sample * self.norms, -1.0)
            return int((norms == norms.max()).nonzero()[0])
        if self.weighted:
            row = _row_at(self.sample, self.uniform(0))
            assert row is not None  # the weights were checked
            return row
        return min(int(self.uniform(0) * self.n), self.n - 1)

    def distances(self, row: int) -> Tensor:
        """Weighted squared distances to a row, float64 [N]."""
        if self.left is None:
            difference = self.right - self.right[row]
            return self.sample * _lane_sum(difference * difference)
        product = _lane_sum(self.left * self.left[row]) * _lane_sum(self.right * self.right[row])
        return self.sample * ((self.norms + self.norms[row]) - 2.0 * product).clamp(min=0.0)

    def fold(self, row: int) -> None:
        self.weights = torch.minimum(self.weights, self.distances(row))

    def fill(self, number: int) -> list[int]:
        """Completes the k rows with uniformly chosen ones."""
        taken = {*self.initial, *self.chosen}
        while len(self.chosen) < self.k:
            left = [i for i in range(self.n) if i not in taken and self.sample[i] > 0.0]
            row = left[min(int(self.uniform(number) * len(left)), len(left) - 1)]
            number += 1
            taken.add(row)
            self.chosen.append(row)
        return self.chosen

    def plain(self) -> list[int]:
        while len(self.chosen) < self.k:
            row = _row_at(self.weights, self.uniform(len(self.chosen)))
            if row is None:
                return self.fill(len(self.chosen))
            self.chosen.append(row)
            self.fold(row)
        return self.chosen

    def rejection(self, refresh_every: int) -> list[int]:
        numbers = self.right.shape[1] + (0 if self.left is None else self.left.shape[1])
        refresh = _Refresh(self.n, numbers, refresh_every)
        pending: list[tuple[int, Tensor]] = []  # centres and the weights by each alone
        candidate = 0
        while len(self.chosen) < self.k:
            row = _row_at(self.weights, self.uniform(2 * candidate + 1))
            if row is None:
                return self.fill(2 * candidate + 1)
            threshold = self.uniform(2 * candidate + 2) * float(self.weights[row])
            candidate += 1
            if all(threshold < float(by_it[row]) for _, by_it in pending):
                self.chosen.append(row)
                pending.append((row, self.distances(row)))
                refresh.accept()
            else:
                refresh.reject()
            if refresh.due(self.k - len(self.chosen)):
                for centre, _ in pending:
                    self.fold(centre)
                pending.clear()
                refresh = _Refresh(self.n, numbers, refresh_every)
        return self.chosen


class _Refresh:
    """Decides when w must include the pending centres; equals `Refresh` in csrc/kmeans/policy.h, which explains it."""

    def __init__(self, rows: int, numbers: int, every: int) -> None:
        self.rows, self.numbers, self.every = rows, numbers, every
        self.pending = self.rejected = 0
        self.recently_accepted = self.recently_rejected = 0.0

    def accept(self) -> None:
        self.pending += 1
        self.recently_accepted = self.recently_accepted * 0.875 + 1.0
        self.recently_rejected = self.recently_rejected * 0.875

    def reject(self) -> None:
        self.rejected += 1
        self.recently_rejected += 1.0

    def due(self, remaining: int) -> bool:
        if self.pending == 0 or remaining == 0:
            return False
        if self.rejected >= self.rows * (64.0 if self.every == 0 else 0.25):
            return True
        if self.every >= 0:
            return self.every > 0 and self.pending >= self.every
        lost = remaining * (self.recently_rejected / (self.recently_accepted + 1.0))
        cost = (self.pending + remaining / 2.0) * 2.0 + 20000.0 / (self.numbers + 8.0)
        return lost * cost >= self.rows * (self.pending + 24.0)


def _check_choice(data: Data, k: int, first: First) -> None:
    """Raises ValueError for weights or initial rows out of range, and where fewer than k rows are left."""
    n = len(data)
    for row in data.initial:
        if not 0 <= row < n:
            raise ValueError(f"expected initial rows in [0, {n}), got {row}")
        if data.initial.count(row) > 1:
            raise ValueError(f"expected different initial rows, got row {row} twice")
    if data.initial and first == "argmax":
        raise ValueError("expected first='random' with initial rows, got 'argmax'")
    eligible, who = torch.ones(n, dtype=torch.bool, device="cpu"), "the number of rows"
    if data.weights is not None:
        bad = (~(data.weights.isfinite() & (data.weights >= 0.0))).nonzero()
        if len(bad):
            raise ValueError(f"expected finite weights >= 0, got {data.weights[bad[0, 0]]:f} for row {int(bad[0, 0])}")
        eligible, who = data.weights > 0.0, "the number of rows of positive weight"
        if not eligible.any():
            raise ValueError("expected a weight above 0, got only zeros")
        if not math.isfinite(float(data.weights.sum())):
            raise ValueError("expected weights of a finite sum, got an overflow")
    if data.initial:
        eligible[data.initial] = False
        who += " that aren't initial"
    if k > int(eligible.sum()):
        raise ValueError(f"expected 1 <= k <= {int(eligible.sum())} ({who}), got k={k}")


def _check_overflow(sums: Tensor) -> None:
    if not sums.isfinite().all():
        raise ValueError(
            "expected x small enough for its squared distances and their sum to fit float64, got an overflow; scale x down"
        )


def _lane_sum(terms: Tensor) -> Tensor:
    """Sums the last dimension: lane l adds terms l, l + 16, ... in order; then the lanes are added in halves.

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
    _check_overflow(torch.tensor(total, dtype=torch.float64, device="cpu"))
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
