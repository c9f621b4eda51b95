"""What the tests of seeding share: the C++ path with given uniforms, and the distribution it must have."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from saal_fast._native import _core
from saal_fast.kmeans import draw_uniforms, kmeans_plusplus_reference

ALMOST_ONE = 1.0 - 2.0**-53


def native(
    x: np.ndarray, k: int, first: str = "random", given: Any = (), *, key: int = 0, algorithm: str = "plain", **options: Any
) -> list[int]:
    """The C++ path with given uniforms, and those of a key beyond them; columns must be next to each other."""
    return _core.kmeans_plusplus(x, k, first, key, np.asarray(given, np.float64), algorithm=algorithm, **options)[0].tolist()


def reference(
    x: Any, k: int, first: str = "random", given: Any = (), *, key: int = 0, count: int = 0, **options: Any
) -> list[int]:
    """The reference with the same uniforms, `count` of them."""
    uniforms = draw_uniforms(max(k, count), key).numpy()
    uniforms[: len(given)] = given
    return kmeans_plusplus_reference(x, k, first=first, uniforms=uniforms, **options).tolist()


@dataclass(frozen=True)
class Case:
    """A small problem of whole numbers whose outcomes can be enumerated."""

    x: np.ndarray
    k: int
    left: np.ndarray | None = None
    weights: np.ndarray | None = None
    initial: list[int] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        weights = None if self.weights is None else self.weights.astype(np.float64)
        return {"left": self.left, "weights": weights, "initial": self.initial}

    def squared(self) -> np.ndarray:
        """Squared distances between all rows, whole numbers [N, N]."""
        rows = self.x.astype(int)
        if self.left is not None:
            rows = (self.left.astype(int)[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        return ((rows[:, None] - rows[None]) ** 2).sum(axis=2)

    def sample(self) -> np.ndarray:
        return np.ones(len(self.x), int) if self.weights is None else self.weights.astype(int)


def ordered_outcomes(case: Case, power: int = 2) -> dict[tuple[int, ...], float]:
    """The exact probability of every ordered choice of k rows, each ∝ weight · (distance²)^(power / 2)."""
    squared, sample = case.squared().tolist(), case.sample().tolist()
    n = len(sample)
    outcomes = {}
    for rows in itertools.permutations([i for i in range(n) if i not in case.initial], case.k):
        probability = Fraction(1)
        for t in range(case.k):
            centres = [*case.initial, *rows[:t]]
            if not centres:
                weights = [Fraction(s) for s in sample]
            elif power == 2:
                weights = [Fraction(s * min(squared[i][c] for c in centres)) for i, s in enumerate(sample)]
            else:
                weights = [Fraction(s * min(squared[i][c] for c in centres) ** (power / 2)) for i, s in enumerate(sample)]
            if sum(weights) == 0:
                weights = [Fraction(i not in centres and s > 0) for i, s in enumerate(sample)]
            probability *= weights[rows[t]] / sum(weights)
        outcomes[rows] = float(probability)
    assert abs(sum(outcomes.values()) - 1.0) < 1e-9
    return outcomes


def p_value(counts: Counter[tuple[int, ...]], probabilities: dict[tuple[int, ...], float]) -> float:
    """Pearson's chi-squared test; outcomes expected fewer than ten times are merged."""
    draws = sum(counts.values())
    if any(probabilities[rows] == 0.0 for rows in counts):
        return 0.0
    pairs = [(counts[rows], draws * p) for rows, p in probabilities.items()]
    cells = [pair for pair in pairs if pair[1] >= 10]
    rest = [pair for pair in pairs if pair[1] < 10]
    cells.append((sum(c for c, _ in rest), sum(e for _, e in rest)))
    cells = [(c, e) for c, e in cells if e > 0]
    statistic = sum((c - e) ** 2 / e for c, e in cells)
    degrees = torch.tensor((len(cells) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, torch.tensor(statistic / 2, dtype=torch.float64)))


def stale_outcomes(case: Case, draws: int, seed: int = 1) -> Counter[tuple[int, ...]]:
    """The control: draws by the weights of the first centres alone, never rejected, repeats drawn anew."""
    generator = np.random.default_rng(seed)
    squared, sample = case.squared(), case.sample()
    n = len(sample)
    first = generator.choice(n, draws, p=sample / sample.sum())
    centres = np.array([case.initial] * draws) if case.initial else first[:, None]
    weights = sample * squared[centres].min(axis=1)
    with np.errstate(divide="ignore"):  # the order of exponentials is the order of draws without replacement
        order = (generator.exponential(size=(draws, n)) / weights).argsort(axis=1)
    rows = order[:, : case.k] if case.initial else np.concatenate([centres, order[:, : case.k - 1]], axis=1)
    return Counter(map(tuple, rows.tolist()))
