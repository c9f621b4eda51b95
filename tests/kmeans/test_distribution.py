"""Every way to draw has the distribution of D² sampling, and the tests can tell."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from seedings import Case, native, ordered_outcomes, p_value, stale_outcomes

from saal_fast._native import _core

DRAWS = 40_000
SEVEN = np.array([[0, 0], [3, 1], [3, 1], [-2, 4], [5, 5], [1, -1], [8, 0]], np.float32)  # row 2 repeats row 1
LINE = np.array([[0], [3], [3], [-2], [9], [1], [14]], np.float32)
LEFT = np.array([[1, 0], [1, -1], [1, -1], [0, 2], [-1, 1], [2, 1], [1, 1]], np.float32)
WEIGHTS = np.array([1, 2, 1, 5, 0, 3, 1])
FEW = np.array([[0], [0], [0], [2], [2]], np.float32)  # two distinct rows: the third draw has no weight left

CASES = {
    "rows": Case(SEVEN, 4),
    "line": Case(LINE, 4),
    "pair": Case(SEVEN, 4, LEFT),
    "weighted rows": Case(SEVEN, 4, weights=WEIGHTS),
    "weighted line": Case(LINE, 4, weights=WEIGHTS),
    "weighted pair": Case(SEVEN, 3, LEFT, weights=WEIGHTS),
    "rows beside initial ones": Case(SEVEN, 3, initial=[1, 6]),
    "line beside initial ones": Case(LINE, 3, initial=[1, 6]),
    "pair beside an initial one, weighted": Case(SEVEN, 3, LEFT, weights=WEIGHTS, initial=[4]),
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"algorithm": "plain"},
    "rejection": {"algorithm": "rejection"},
    "rejection, no refresh": {"algorithm": "rejection", "refresh_every": 0},
    "rejection, a refresh after each row": {"algorithm": "rejection", "refresh_every": 1},
    "rejection, a refresh after two": {"algorithm": "rejection", "refresh_every": 2},
    "sorted": {"algorithm": "sorted"},
}
QUICKLY = [
    *((case, "rejection") for case in ("rows", "pair", "rows beside initial ones")),
    ("pair beside an initial one, weighted", "plain"),
    ("rows", "rejection, a refresh after two"),
    ("rows", "plain"),
    ("line", "sorted"),
    ("line beside initial ones", "sorted"),
]
DRAWN = [
    pytest.param(case, way, marks=() if (case, way) in QUICKLY else pytest.mark.slow)
    for case, way in itertools.product(CASES, WAYS)
    if (way != "sorted" or "line" in case) and ("refresh" not in way or case in ("rows", "line", "pair"))
]


@pytest.mark.parametrize(("name", "way"), DRAWN)
def test_every_ordered_outcome_is_as_likely_as_d_squared_sampling_says(name: str, way: str) -> None:
    case = CASES[name]
    options = case.options() | WAYS[way]
    counts = Counter(tuple(native(case.x, case.k, key=key, **options)) for key in range(DRAWS))
    assert p_value(counts, ordered_outcomes(case)) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_control_stale_weights_without_rejection_fail(name: str) -> None:
    case = CASES[name]
    assert p_value(stale_outcomes(case, DRAWS), ordered_outcomes(case)) < 1e-6


@pytest.mark.parametrize("power", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_control_other_powers_of_the_distance_fail(power: int) -> None:
    case = CASES["rows"]
    counts = Counter(tuple(native(case.x, case.k, key=key, algorithm="rejection")) for key in range(DRAWS))
    other = ordered_outcomes(case, power) if power else uniform_outcomes(len(case.x), case.k)
    assert p_value(counts, other) < 1e-6
    keys = list(other)
    picks = np.random.default_rng(3).choice(len(keys), DRAWS, p=np.array(list(other.values())))
    wrong = Counter(keys[pick] for pick in picks)
    assert p_value(wrong, ordered_outcomes(case)) < 1e-6
    assert p_value(wrong, other) > 1e-4


@pytest.mark.parametrize("way", [pytest.param("plain", marks=pytest.mark.slow), "rejection", "sorted"])
def test_without_weight_left_the_rest_is_uniform(way: str) -> None:
    few, constant = Case(FEW, 4), Case(np.full((6, 1), 2.5, np.float32), 2)
    counts = Counter(tuple(native(few.x, 4, key=key, algorithm=way)) for key in range(DRAWS))
    assert p_value(counts, ordered_outcomes(few)) > 1e-4
    counts = Counter(tuple(native(constant.x, 2, key=key, algorithm=way)) for key in range(DRAWS))
    assert p_value(counts, uniform_outcomes(6, 2)) > 1e-4


def uniform_outcomes(n: int, k: int) -> dict[tuple[int, ...], float]:
    orders = list(itertools.permutations(range(n), k))
    return dict.fromkeys(orders, 1.0 / len(orders))


# ---- the potential of larger cases


def potentials(x: np.ndarray, k: int, runs: range, **options: Any) -> np.ndarray:
    """Σ D² after k rows, once for each key."""
    empty = np.empty(0)
    return np.array([_core.kmeans_plusplus(x, k, "random", key, empty, potential=True, **options)[1][1] for key in runs])


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """The p-value of the two-sample test, by Kolmogorov's limit."""
    grid = np.sort(np.concatenate([a, b]))
    gap = np.abs(
        np.searchsorted(np.sort(a), grid, "right") / len(a) - np.searchsorted(np.sort(b), grid, "right") / len(b)
    ).max()
    z = gap * np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    return float(min(1.0, 2 * sum((-1) ** (j - 1) * np.exp(-2 * j * j * z * z) for j in range(1, 101))))


def clustered(n: int, dim: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((12, dim)) * 3
    return (centres[generator.integers(0, 12, n)] + 0.2 * generator.standard_normal((n, dim))).astype(np.float32)


@pytest.mark.parametrize(
    ("dim", "paired", "refreshes"),
    [
        (1, False, (-1,)),
        pytest.param(1, False, (0, 7), marks=pytest.mark.slow),
        *(pytest.param(*case, (-1, 0, 7), marks=pytest.mark.slow) for case in [(1, True), (5, False), (5, True)]),
    ],
)
def test_the_potential_is_distributed_as_the_plain_loops(dim: int, paired: bool, refreshes: tuple[int, ...]) -> None:
    x = clustered(500, dim, 0)
    left = clustered(500, 3, 1) if paired else None
    plain = potentials(x, 25, range(1500), algorithm="plain", left=left)
    for refresh_every in refreshes:
        other = potentials(x, 25, range(5000, 6500), algorithm="rejection", refresh_every=refresh_every, left=left)
        assert kolmogorov_smirnov(plain, other) > 1e-4
    if dim == 1 and not paired:
        assert kolmogorov_smirnov(plain, potentials(x, 25, range(5000, 6500), algorithm="sorted")) > 1e-4
    fewer = potentials(x, 24, range(5000, 6500), algorithm="rejection", left=left)
    assert kolmogorov_smirnov(plain, fewer) < 1e-4  # a control: one row less is seen


def test_the_potential_is_the_sum_of_squared_distances() -> None:
    x, weights = clustered(700, 4, 2), np.random.default_rng(0).random(700)
    for algorithm in ("plain", "rejection"):
        rows, info = _core.kmeans_plusplus(
            x, 30, "random", 5, np.empty(0), weights=weights, initial=[3, 4], algorithm=algorithm, potential=True
        )
        nearest = torch.cdist(torch.from_numpy(x).double(), torch.from_numpy(x[[*rows, 3, 4]]).double()).square().amin(1)
        assert info[1] == pytest.approx(float(nearest @ torch.from_numpy(weights)), rel=1e-9)
