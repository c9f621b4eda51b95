"""The same uniforms, the same rows: C++ against the reference in plain PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seedings import ALMOST_ONE, native, reference

from saal_fast._native import _core
from saal_fast.kmeans import draw_uniforms, kmeans_plusplus, kmeans_plusplus_reference

UNIFORM_COUNT = 20_000  # uniforms


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Matrices and pairs of odd shapes: spread out, with duplicates, constant, far from the origin, tiny and huge."""
    n = draw(st.one_of(st.integers(1, 12), st.integers(250, 600)))
    dim = draw(st.one_of(st.just(1), st.integers(1, 40)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    tiny = {np.float32: 1e-41, np.float64: 1e-310}[dtype]  # denormal numbers
    paired = draw(st.integers(0, 3)) == 0

    def matrix(dim: int) -> np.ndarray:
        x = generator.standard_normal((n, dim))
        if draw(st.booleans()):
            x = x[generator.integers(0, draw(st.integers(1, n)), n)]  # few distinct rows; often just one
        if draw(st.booleans()):
            x = x.round()
        scale = draw(st.sampled_from([1.0, 1e-3, 1e-12, tiny, 1e12]))
        return (x * scale + scale * draw(st.sampled_from([0.0, -3.0, 1e3, 1e6]))).astype(dtype)

    x = matrix(dim)
    left = matrix(draw(st.integers(1, 9))) if paired else None
    weights = generator.integers(0, 3, n) * generator.random(n) if draw(st.integers(0, 3)) == 0 else None
    if weights is not None and not weights.any():
        weights[0] = 1.0
    initial = []
    if n > 1 and draw(st.integers(0, 3)) == 0:
        initial = generator.permutation(n)[: draw(st.integers(1, min(n - 1, 5)))].tolist()
    eligible = np.ones(n) if weights is None else weights.copy()
    eligible[initial] = 0.0
    left_over = int((eligible > 0).sum())
    if left_over == 0:
        weights, left_over = None, n - len(initial)
    k = (
        draw(st.sampled_from(sorted({1, left_over, min(left_over, 2), min(left_over, 7)})))
        if left_over < 50
        else draw(st.integers(1, 8))
    )
    u = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.25, 0.5, ALMOST_ONE]))
    return {
        "x": x,
        "k": k,
        "left": left,
        "weights": weights,
        "initial": initial,
        "first": draw(st.sampled_from(["random", "argmax"])) if not initial else "random",
        "given": draw(st.lists(u, max_size=2 * k)),
        "key": draw(st.integers(0, 2**64 - 1)),
    }


def both(problem: dict[str, Any], algorithm: str, **options: Any) -> tuple[list[int], list[int]]:
    """The reference's rows, and the core's, which must be the same for every instruction set."""
    x, left = problem["x"], problem["left"]
    rest = {name: problem[name] for name in ("weights", "initial", "key")} | {"algorithm": algorithm} | options
    points = x if left is None else (left, x)
    expected = reference(points, problem["k"], problem["first"], problem["given"], count=UNIFORM_COUNT, **rest)
    got = [
        native(x, problem["k"], problem["first"], problem["given"], left=left, isa=isa, **rest)
        for isa in _core.usable_isas()
    ]
    assert all(rows == got[0] for rows in got), got
    return expected, got[0]


@given(problems())
@settings(deadline=None, max_examples=120)
def test_plain_chooses_the_references_rows(problem: dict[str, Any]) -> None:
    expected, got = both(problem, "plain")
    assert got == expected
    assert len({*expected, *problem["initial"]}) == problem["k"] + len(problem["initial"])


@given(problems(), st.sampled_from([-1, -1, 1, 3]))
@settings(deadline=None, max_examples=150)
def test_rejection_chooses_the_references_rows(problem: dict[str, Any], refresh_every: int) -> None:
    expected, got = both(problem, "rejection", refresh_every=refresh_every)
    assert got == expected
    assert len({*expected, *problem["initial"]}) == problem["k"] + len(problem["initial"])


@given(problems())
@settings(deadline=None, max_examples=60)
def test_sorted_chooses_the_references_rows(problem: dict[str, Any]) -> None:
    problem |= {"x": problem["x"][:, :1].copy(), "left": None}
    expected, got = both(problem, "sorted")
    assert got == expected


@pytest.mark.parametrize(
    ("dim", "dtype"),
    [
        (1, np.float32),
        (3, np.float64),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, np.float64), (3, np.float32)]),
    ],
)
def test_rows_agree_over_several_groups_of_blocks(dim: int, dtype: type) -> None:
    generator = np.random.default_rng(dim)
    x = generator.standard_normal((140_001, dim)).astype(dtype)  # three groups of 256 blocks of 256 rows
    uniforms = np.concatenate([generator.random(10), [0.0, ALMOST_ONE]])
    expected = reference(x, 12, "random", uniforms)
    assert len({row // 65_536 for row in expected}) > 1
    assert native(x, 12, "random", uniforms) == expected
    options = {"key": 3, "algorithm": "rejection", "refresh_every": 3}
    assert native(x, 12, **options) == reference(x, 12, count=2_000, **options)
    if dim == 1:
        assert native(x, 12, key=3, algorithm="sorted") == reference(x, 12, key=3, algorithm="sorted")


def tight(n: int, dim: int, dtype: type, offset: float = 0.0, width: float = 1e-3) -> np.ndarray:
    """Thirty clusters, by default a thousandth as wide as they are apart, some rows repeated."""
    generator = np.random.default_rng(n)
    x = generator.standard_normal((30, dim))[generator.integers(0, 30, n)] + width * generator.standard_normal((n, dim))
    x[n // 2 : n // 2 + 50] = x[:50]
    return (x + offset).astype(dtype)


@pytest.mark.parametrize("offset", [pytest.param(0.0, marks=pytest.mark.slow), 1e3])
@pytest.mark.parametrize(
    ("dtype", "dim"), [pytest.param(np.float32, 70, marks=pytest.mark.slow), (np.float64, 33), (np.float32, 2)]
)
def test_rejection_over_many_panels_of_centres(dim: int, dtype: type, offset: float) -> None:
    for refresh_every, width in ((-1, 1e-3), (90, 0.5)):
        x = tight(1500, dim, dtype, offset, width)
        options = {"key": 1, "algorithm": "rejection", "refresh_every": refresh_every}
        expected = reference(x, 200, count=UNIFORM_COUNT, **options)
        for isa in _core.usable_isas():
            assert native(x, 200, isa=isa, **options) == expected, isa


def test_rejection_over_a_pair_many_centres() -> None:
    x, left = np.maximum(tight(1200, 50, np.float32), 0), tight(1200, 7, np.float32)
    for options in ({}, {"initial": list(range(0, 400, 4))}, {"weights": np.random.default_rng(0).random(1200)}):
        options |= {"key": 2, "algorithm": "rejection"}
        expected = reference((left, x), 150, count=UNIFORM_COUNT, **options)
        for isa in _core.usable_isas():
            assert native(x, 150, left=left, isa=isa, **options) == expected, isa


@pytest.mark.parametrize("algorithm", ["plain", "rejection", "sorted"])
@pytest.mark.parametrize("paired", [False, True])
def test_rows_do_not_depend_on_threads(algorithm: str, paired: bool) -> None:
    if algorithm == "sorted" and paired:
        pytest.skip("sorted is for numbers")
    x = tight(200_000 if algorithm == "sorted" else 6_000, 1 if algorithm == "sorted" else 70, np.float32)
    left = tight(6_000, 9, np.float32) if paired else None
    expected = native(x, 120, algorithm=algorithm, left=left, threads=1)
    for threads in (2, 3, 4, 64):
        assert native(x, 120, algorithm=algorithm, left=left, threads=threads) == expected


def test_targets_on_the_border_of_rows_and_blocks() -> None:
    # From row 0 every other row has weight 1: with u = j / 512 the target is the whole number j, exactly the
    # sum of all weights before row j + 1.
    x = np.ones((513, 1))
    x[0] = 0.0
    for j in (0, 1, 254, 255, 256, 511):
        assert native(x, 2, "random", [0.0, j / 512]) == [0, j + 1] == reference(x, 2, "random", [0.0, j / 512])


@pytest.mark.parametrize("algorithm", ["plain", "rejection", "sorted"])
def test_the_public_function_draws_the_uniforms_of_its_seed(algorithm: str) -> None:
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(1))
    expected = kmeans_plusplus_reference(x, 20, uniforms=draw_uniforms(5000, 7), algorithm=algorithm)
    rows = kmeans_plusplus(x, 20, seed=7, algorithm=algorithm)
    assert rows.tolist() == expected.tolist()
    assert (rows.dtype, rows.shape, rows.device.type) == (torch.int64, (20,), "cpu")


def test_a_pair_stands_for_its_outer_products() -> None:
    # Small whole numbers: no rounding either way, so that even the rows are the same.
    generator = np.random.default_rng(4)
    left, x = (generator.integers(-4, 5, (400, dim)).astype(np.float32) for dim in (5, 12))
    embedding = (left[:, :, None] * x[:, None, :]).reshape(400, -1)
    for first in ("random", "argmax"):
        pair = kmeans_plusplus((left, x), 60, first=first, seed=1, algorithm="plain")
        assert pair.equal(kmeans_plusplus(embedding, 60, first=first, seed=1, algorithm="plain"))
        options = {"algorithm": "rejection", "refresh_every": 5}  # by the counts they differ: a pair costs less
        assert native(x, 60, first, left=left, **options) == native(embedding, 60, first, **options)


def test_the_uniforms_are_uniform() -> None:
    u = draw_uniforms(100_000, 3)
    assert bool(((u >= 0) & (u < 1)).all())
    counts = torch.histc(u, 100, 0, 1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 170  # of 99 degrees of freedom: p = 1e-5
    pairs = (u[0::2] * 10).long() * 10 + (u[1::2] * 10).long()
    counts = torch.bincount(pairs, minlength=100)
    assert float(((counts - 500) ** 2 / 500).sum()) < 170
    assert not draw_uniforms(10, 4).equal(u[:10])


@pytest.mark.parametrize("scale", [2.0**150, 2.0**182, 2.0**200, 2.0**340])
def test_rows_that_overflow_floats_are_computed_exactly(scale: float) -> None:
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((100, 2)) * scale
        want = kmeans_plusplus_reference(x, 50, uniforms=draw_uniforms(10_000, seed), algorithm="rejection")
        assert torch.equal(kmeans_plusplus(x, 50, seed=seed, algorithm="rejection"), want)


def test_so_are_outliers_that_the_frame_has_not_seen() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((600, 3)).astype(np.float32)
    x[1::7] = (random.standard_normal(x[1::7].shape) + 2) * 1e20
    for seed in range(6):
        want = kmeans_plusplus_reference(x, 12, uniforms=draw_uniforms(10_000, seed), algorithm="rejection")
        assert torch.equal(kmeans_plusplus(x, 12, seed=seed, algorithm="rejection"), want)


def test_rows_without_weight_are_filled_as_the_reference_does() -> None:
    x = np.ones((500, 2))
    want = kmeans_plusplus_reference(x, 490, uniforms=draw_uniforms(10_000, 3), algorithm="plain")
    assert torch.equal(kmeans_plusplus(x, 490, seed=3, algorithm="plain"), want)
