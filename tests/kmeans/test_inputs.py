"""What `kmeans_plusplus` takes and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from seedings import native, reference

from saal_fast.kmeans import kmeans_plusplus, kmeans_plusplus_reference

# ---- first row, duplicates, seeds


def test_argmax_starts_from_the_largest_norm_and_of_equals_the_first() -> None:
    x = torch.tensor([[1.0, 1.0], [0.0, -5.0], [3.0, 4.0], [5.0, 0.0]])
    for seed in range(20):
        assert kmeans_plusplus(x, 2, first="argmax", seed=seed)[0] == 1
    assert kmeans_plusplus(torch.tensor([2.0, -7.0, 7.0]), 1, first="argmax", seed=0).tolist() == [1]


def test_no_row_is_chosen_twice_and_distinct_values_come_first() -> None:
    x = torch.tensor([4.0, 4.0, 1.0, 4.0, 1.0, 9.0, 9.0, 1.0])
    for seed in range(50):
        rows = kmeans_plusplus(x, 8, seed=seed).tolist()
        assert sorted(rows) == list(range(8))
        assert {float(x[row]) for row in rows[:3]} == {1.0, 4.0, 9.0}


def test_one_row() -> None:
    assert kmeans_plusplus(torch.tensor([[1.0, 2.0]]), 1, seed=0).tolist() == [0]
    assert kmeans_plusplus(torch.tensor([1.0]), 1, first="argmax").tolist() == [0]


def test_seeds_repeat_and_differ() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert kmeans_plusplus(x, 30, seed=5).equal(kmeans_plusplus(x, 30, seed=5))
    assert not kmeans_plusplus(x, 30, seed=5).equal(kmeans_plusplus(x, 30, seed=6))
    assert not kmeans_plusplus(x, 30).equal(kmeans_plusplus(x, 30))


def test_a_generator_moves_on_by_one_draw() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    one, other = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    first, second = kmeans_plusplus(x, 10, seed=one), kmeans_plusplus(x, 20, seed=one)
    assert first.equal(kmeans_plusplus(x, 10, seed=other))
    assert second.equal(kmeans_plusplus(x, 20, seed=other))
    assert not second[:10].equal(first)
    assert one.get_state().equal(other.get_state())


@pytest.mark.parametrize("seed", [None, 3])
def test_the_global_generators_are_not_touched(seed: int | None) -> None:
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    kmeans_plusplus(torch.randn(50, generator=torch.Generator()), 5, seed=seed)
    assert torch.get_rng_state().equal(before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


# ---- what x may be

WHOLE = np.random.default_rng(8).integers(0, 100, (40, 6))
EXPECTED = kmeans_plusplus(WHOLE.astype(np.float64), 9, seed=11).tolist()
assert reference(WHOLE.astype(np.float64), 9, key=11, algorithm="plain") == EXPECTED


@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "uint16"],
)
def test_tensors_of_any_real_dtype(dtype: str) -> None:
    x = torch.from_numpy(WHOLE).to(getattr(torch, dtype))
    assert kmeans_plusplus(x, 9, seed=11).tolist() == EXPECTED


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8", "u1", "<u2", ">i2", "<i4", ">i8", "<u8"])
def test_arrays_of_any_real_dtype_and_byte_order(dtype: str) -> None:
    assert kmeans_plusplus(WHOLE.astype(dtype), 9, seed=11).tolist() == EXPECTED


def test_booleans() -> None:
    x = torch.tensor([False, True, False, False])
    assert set(kmeans_plusplus(x, 2, seed=0).tolist()) >= {1}
    assert 1 in kmeans_plusplus(x.numpy(), 2, seed=0).tolist()


def test_wide_integers_keep_differences_that_float32_loses() -> None:
    x = torch.tensor([2**24, 2**24 + 1], dtype=torch.int32)
    assert x.float().unique().numel() == 1
    three = torch.tensor([2**24, 2**24, 2**24 + 1], dtype=torch.int32)
    assert all(2 in kmeans_plusplus(three, 2, seed=seed).tolist() for seed in range(30))


def layouts() -> dict[str, Any]:
    f = torch.from_numpy(WHOLE).double()
    padded = torch.full((80, 13), torch.nan, dtype=torch.float64)
    padded[::2, 1:13:2] = f
    rows = torch.full((40, 9), torch.nan, dtype=torch.float64)
    rows[:, 2:8] = f
    frozen = f.numpy().copy()
    frozen.setflags(write=False)
    return {
        "contiguous": f,
        "transposed": f.t().contiguous().t(),
        "every other column": padded[::2, 1:13:2],
        "rows apart": rows[:, 2:8],
        "requires grad": f.clone().requires_grad_(),
        "Fortran order": np.asfortranarray(f.numpy()),
        "negative strides": f.numpy()[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": frozen,
        "strided array": padded.numpy()[::2, 1:13:2],
        "odd bytes": unaligned(f.numpy()),
    }


def unaligned(x: np.ndarray) -> np.ndarray:
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    view = bytes_[1:].view(x.dtype).reshape(x.shape)
    view[:] = x
    return view


@pytest.mark.parametrize("layout", layouts())
def test_any_layout(layout: str, recwarn: pytest.WarningsRecorder) -> None:
    assert kmeans_plusplus(layouts()[layout], 9, seed=11).tolist() == EXPECTED
    assert not recwarn.list


def test_one_dimension_is_one_column_whatever_its_stride() -> None:
    x = torch.randn(600, generator=torch.Generator().manual_seed(2))
    expected = kmeans_plusplus(x[::3].clone(), 9, seed=1)
    assert kmeans_plusplus(x[::3], 9, seed=1).equal(expected)
    assert kmeans_plusplus(x[::3, None], 9, seed=1).equal(expected)
    assert kmeans_plusplus(torch.ones(1).expand(20), 20, seed=1).unique().numel() == 20


def test_x_is_left_alone() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    kmeans_plusplus(x, 10, seed=0)
    assert x.equal(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_offset_common_to_all_rows_changes_nothing(dtype: torch.dtype) -> None:
    # ‖x‖² + ‖c‖² − 2xc would lose these differences entirely.
    x = torch.from_numpy(WHOLE).to(dtype)
    assert kmeans_plusplus(x + 2**20, 9, seed=11).tolist() == EXPECTED


# ---- errors


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.zeros(3), {"k": 0}, ValueError, r"expected 1 <= k <= 3 \(the number of rows\), got k=0"),
        (torch.zeros(3), {"k": -2}, ValueError, "got k=-2"),
        (torch.zeros(3), {"k": 4}, ValueError, r"expected 1 <= k <= 3 \(the number of rows\), got k=4"),
        (torch.zeros(3), {"k": 2.0}, TypeError, r"expected k to be an integer, got 2\.0 \(float\)"),
        (torch.zeros(3), {"k": True}, TypeError, "expected k to be an integer, got True"),
        (torch.zeros(3), {"k": "2"}, TypeError, r"expected k to be an integer, got '2' \(str\)"),
        (torch.zeros(3), {"k": None}, TypeError, "expected k to be an integer, got None"),
        (torch.zeros(3), {"k": torch.tensor(1.5)}, TypeError, "expected k to be an integer"),
        (torch.tensor(1.0), {}, ValueError, r"expected x of shape \[N\] or \[N, D\], got \[\]"),
        (torch.zeros(2, 2, 2), {}, ValueError, r"expected x of shape \[N\] or \[N, D\], got \[2, 2, 2\]"),
        (torch.zeros(0), {}, ValueError, r"expected x of at least one row and one column, got \[0\]"),
        (torch.zeros(0, 3), {}, ValueError, r"at least one row and one column, got \[0, 3\]"),
        (torch.zeros(3, 0), {}, ValueError, r"at least one row and one column, got \[3, 0\]"),
        (torch.zeros(3, dtype=torch.complex64), {}, TypeError, "real numbers, got torch.complex64"),
        (np.zeros(3, np.complex128), {}, TypeError, "real numbers, got torch.complex128"),
        (np.array(["a", "b"]), {}, TypeError, "real numbers, got a NumPy array of dtype <U1"),
        (np.array([object()]), {}, TypeError, "real numbers, got a NumPy array of dtype object"),
        pytest.param(
            *(np.zeros(3, np.longdouble), {}, TypeError, "real numbers, got a NumPy array of dtype float"),
            marks=pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="long double is double here"),
        ),
        ([1.0, 2.0], {}, TypeError, "expected x to be a tensor or a NumPy array, got list"),
        (torch.eye(3).to_sparse(), {}, TypeError, "expected x to be dense, got torch.sparse_coo"),
        (torch.zeros(3), {"first": "best"}, ValueError, "expected first='random' or 'argmax', got 'best'"),
    ],
)
@pytest.mark.parametrize("function", [kmeans_plusplus, kmeans_plusplus_reference])
def test_bad_arguments(function: Any, x: Any, options: dict[str, Any], error: type, message: str) -> None:
    options = {"k": 1} | options
    if function is kmeans_plusplus_reference:
        options["uniforms"] = [0.5]
    with pytest.raises(error, match=message):
        function(x, **options)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("first", ["random", "argmax"])
def test_the_first_row_that_is_not_finite_is_named(bad: float, dtype: torch.dtype, first: str) -> None:
    for shape, k in (((600,), 1), ((600, 20), 3)):
        x = torch.ones(shape, dtype=dtype)
        x[512] = bad
        x.view(600, -1)[377, -1] = bad
        message = "expected finite values in x, got NaN or inf first in row 377"
        with pytest.raises(ValueError, match=message):
            kmeans_plusplus(x, k, first=first, seed=0)
        with pytest.raises(ValueError, match=message):
            kmeans_plusplus_reference(x, k, first=first, uniforms=[0.5] * k)


@pytest.mark.parametrize(
    "x",
    [
        [1e200, 1.0, 2.0],  # a norm overflows
        [1.2e154, -1.2e154, 0.0],  # a distance does
        [0.0] + [1e154] * 3,  # the sum does
    ],
)
def test_squares_that_overflow_are_an_error(x: list[float]) -> None:
    rows = torch.tensor(x, dtype=torch.float64)
    with pytest.raises(ValueError, match="overflow; scale x down"):
        kmeans_plusplus_reference(rows, 2, uniforms=[0.0, 0.5])
    with pytest.raises(ValueError, match="overflow; scale x down"):
        native(rows[:, None].numpy(), 2, "random", [0.0, 0.5])


def test_the_largest_float32_values_do_not_overflow() -> None:
    top = torch.finfo(torch.float32).max
    assert sorted(kmeans_plusplus(torch.tensor([top, -top, top]), 3, seed=0).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, r"expected 0 <= seed < 2\*\*64, got -1"),
        (2**64, ValueError, r"expected 0 <= seed < 2\*\*64"),
        (1.5, TypeError, "expected seed to be an integer, a torch.Generator or None, got 1.5"),
        (True, TypeError, "expected seed to be an integer"),
    ],
)
def test_bad_seeds(seed: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        kmeans_plusplus(torch.zeros(3), 1, seed=seed)


@pytest.mark.parametrize("largest", [0, 2**64 - 1])
def test_seeds_at_the_ends_of_the_range(largest: int) -> None:
    assert len(kmeans_plusplus(torch.zeros(3), 2, seed=largest)) == 2


@pytest.mark.parametrize(
    ("uniforms", "message"),
    [
        ([0.5, 1.0], r"expected uniforms in \[0, 1\)"),
        ([-0.1, 0.5], r"expected uniforms in \[0, 1\)"),
        ([0.5, float("nan")], r"expected uniforms in \[0, 1\)"),
    ],
)
def test_bad_uniforms(uniforms: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans_plusplus_reference(torch.zeros(3), 2, uniforms=uniforms)
    with pytest.raises(ValueError, match=message):
        native(np.zeros((3, 1)), 2, "random", uniforms)


def test_the_reference_says_when_uniforms_run_out() -> None:
    with pytest.raises(ValueError, match="expected k=2 uniforms, got 1"):
        kmeans_plusplus_reference(torch.zeros(3), 2, uniforms=[0.5])
    with pytest.raises(ValueError, match="expected more than 4 uniforms: the draws ask for number 4"):
        kmeans_plusplus_reference(torch.arange(9.0), 3, uniforms=[0.5] * 4, algorithm="rejection")


def test_the_core_checks_for_itself() -> None:
    x = np.zeros((4, 3))
    with pytest.raises(ValueError, match="expected x of 2 dimensions, got 1"):
        native(np.zeros(4), 1, "random", [0.5])
    with pytest.raises(ValueError, match="columns next to each other"):
        native(np.zeros((3, 4)).T, 1, "random", [0.5])
    with pytest.raises(ValueError, match="expected 1 <= k <= 4"):
        native(x, 5, "random", [0.5] * 5)
    with pytest.raises(ValueError, match="expected first='random' or 'argmax', got 'last'"):
        native(x, 1, "last", [0.5])
    with pytest.raises(ValueError, match="expected an instruction set that is built and runs here, got 'mmx'"):
        native(x, 1, "random", [0.5], isa="mmx")
    with pytest.raises(ValueError, match="expected algorithm='auto', 'plain', 'rejection' or 'sorted', got 'best'"):
        native(x, 1, algorithm="best")
    with pytest.raises(ValueError, match="expected as many rows in both factors, got 2 and 4"):
        native(x, 1, left=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least one column each, got none in the first"):
        native(x, 1, left=np.zeros((4, 0)))
    with pytest.raises(ValueError, match="expected a weight for each of 4 rows"):
        native(x, 1, weights=np.ones(3))
    with pytest.raises(TypeError):
        native(np.zeros((4, 3), np.int64), 1, "random", [0.5])


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (
            torch.zeros(3),
            {"algorithm": "best"},
            ValueError,
            "expected algorithm='auto', 'plain', 'rejection' or 'sorted', got 'best'",
        ),
        (torch.zeros(3, 2), {"algorithm": "sorted"}, ValueError, "one number a row for algorithm='sorted', got 2 columns"),
        ((torch.zeros(3), torch.zeros(3)), {"algorithm": "sorted"}, ValueError, "for algorithm='sorted', got a pair"),
        ((torch.zeros(3), torch.zeros(4, 2)), {}, ValueError, "expected a and h of as many rows, got 3 and 4"),
        ((torch.zeros(3),), {}, ValueError, r"one array or a pair \(a, h\), got 1 of them"),
        ((torch.zeros(3), [1.0]), {}, TypeError, "expected h to be a tensor or a NumPy array, got list"),
        (
            (torch.zeros(3, 0), torch.zeros(3, 2)),
            {},
            ValueError,
            r"expected a of at least one row and one column, got \[3, 0\]",
        ),
        (
            torch.zeros(3),
            {"weights": torch.ones(2)},
            ValueError,
            r"expected weights as real numbers \[3\], .* got torch.float32 \[2\]",
        ),
        (torch.zeros(3), {"weights": torch.ones(3, 1)}, ValueError, r"got torch.float32 \[3, 1\]"),
        (torch.zeros(3), {"weights": torch.ones(3) * 1j}, ValueError, "got torch.complex64"),
        (torch.zeros(3), {"weights": [1, -0.5, 1]}, ValueError, "expected finite weights >= 0, got -0.500000 for row 1"),
        (torch.zeros(3), {"weights": [1, 1, torch.nan]}, ValueError, "expected finite weights >= 0, got nan for row 2"),
        (torch.zeros(3), {"weights": [torch.inf, 1, 1]}, ValueError, "expected finite weights >= 0, got inf for row 0"),
        (torch.zeros(3), {"weights": [0, 0, 0]}, ValueError, "expected a weight above 0, got only zeros"),
        (torch.zeros(3), {"weights": np.array([1e308, 1e308, 0])}, ValueError, "weights of a finite sum, got an overflow"),
        (
            torch.zeros(3),
            {"weights": [0, 2, 0], "k": 2},
            ValueError,
            r"1 <= k <= 1 \(the number of rows of positive weight\), got k=2",
        ),
        (
            torch.zeros(3),
            {"initial": [0, 1], "k": 2},
            ValueError,
            r"1 <= k <= 1 \(the number of rows that aren't initial\), got k=2",
        ),
        (
            torch.zeros(3),
            {"initial": [0], "weights": [1, 1, 0], "k": 2},
            ValueError,
            "rows of positive weight that aren't initial",
        ),
        (torch.zeros(3), {"initial": [3]}, ValueError, r"expected initial rows in \[0, 3\), got 3"),
        (torch.zeros(3), {"initial": [-1]}, ValueError, r"expected initial rows in \[0, 3\), got -1"),
        (torch.zeros(3), {"initial": [1, 1]}, ValueError, "expected different initial rows, got row 1 twice"),
        (
            torch.zeros(3),
            {"initial": [0.5]},
            TypeError,
            r"expected initial as numbers of rows \[M\], got torch.float64 \[1\]",
        ),
        (torch.zeros(3), {"initial": [True, False, True]}, TypeError, "got torch.bool"),
        (
            torch.zeros(3),
            {"initial": [0], "first": "argmax"},
            ValueError,
            "expected first='random' with initial rows, got 'argmax'",
        ),
    ],
)
@pytest.mark.parametrize("function", [kmeans_plusplus, kmeans_plusplus_reference])
def test_bad_weights_pairs_and_initial_rows(
    function: Any, x: Any, options: dict[str, Any], error: type, message: str
) -> None:
    options = {"k": 1} | options
    if function is kmeans_plusplus_reference:
        options = {"algorithm": "plain"} | options | {"uniforms": [0.5] * 2}
    with pytest.raises(error, match=message):
        function(x, **options)


@pytest.mark.parametrize("algorithm", ["plain", "rejection", "sorted"])
@pytest.mark.parametrize("k", [1, 5])
def test_every_way_names_the_first_row_that_is_not_finite(algorithm: str, k: int) -> None:
    x = torch.ones(600)
    x[377] = torch.nan
    x[400] = torch.inf
    for extra in ({}, {"weights": torch.ones(600)}, {"initial": [400]}):
        with pytest.raises(ValueError, match="got NaN or inf first in row 377"):
            kmeans_plusplus(x, k, seed=1, algorithm=algorithm, **extra)
    if algorithm != "sorted":
        for pair in ((x, torch.ones(600, 9)), (torch.ones(600, 9), x)):
            with pytest.raises(ValueError, match="got NaN or inf first in row 377"):
                kmeans_plusplus(pair, k, seed=1, algorithm=algorithm)


# ---- weights, initial rows, info


@pytest.mark.parametrize("algorithm", ["plain", "rejection", "sorted"])
def test_rows_of_weight_zero_and_initial_rows_are_never_chosen(algorithm: str) -> None:
    x = torch.randn(60, generator=torch.Generator().manual_seed(0)).round()  # many equal: weight runs out
    weights = torch.arange(60) % 3
    initial = torch.tensor([1, 4, 5])
    eligible = sorted({i for i in range(60) if i % 3} - {1, 4, 5})
    for seed in range(10):
        rows = kmeans_plusplus(x, len(eligible), weights=weights, initial=initial, seed=seed, algorithm=algorithm)
        assert sorted(rows.tolist()) == eligible


def test_weights_count_as_repeated_rows_do() -> None:
    x = torch.tensor([0.0, 1.0, 5.0])
    weighted = torch.tensor([kmeans_plusplus(x, 1, weights=[1, 6, 3], seed=seed)[0] for seed in range(2000)])
    assert torch.allclose(weighted.bincount(minlength=3) / 2000, torch.tensor([0.1, 0.6, 0.3]), atol=0.05)


def test_argmax_takes_the_largest_weighted_norm() -> None:
    x = torch.tensor([1.0, -3.0, 2.0])
    assert kmeans_plusplus(x, 1, first="argmax", weights=[1, 0, 1])[0] == 2
    assert kmeans_plusplus(x, 1, first="argmax", weights=[20, 2, 1])[0] == 0
    assert kmeans_plusplus(torch.zeros(3), 1, first="argmax", weights=[0, 1, 1])[0] == 1


@pytest.mark.parametrize("algorithm", ["auto", "plain", "rejection", "sorted"])
def test_the_info(algorithm: str) -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, info = kmeans_plusplus(x, 40, seed=0, algorithm=algorithm, return_info=True)
    assert rows.equal(kmeans_plusplus(x, 40, seed=0, algorithm=algorithm))
    nearest = (x[:, None] - x[rows][None]).square().amin(1)
    assert info.potential == pytest.approx(float(nearest.sum()), rel=1e-12)
    assert info.algorithm in ([algorithm] if algorithm != "auto" else ["plain", "rejection", "sorted"])
    assert (info.acceptance < 1.0) == (info.algorithm == "rejection")
    assert info.acceptance > 0.05
    assert 1 <= info.refreshes <= 40
    assert 3000 <= info.distances <= 40 * 3000 + 40 * 40 / info.acceptance


def test_weights_and_initial_rows_in_any_layout() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    weights, initial = np.arange(1.0, 21.0), np.array([1, 5, 7])
    want = kmeans_plusplus(x, 5, seed=0, weights=weights, initial=initial)
    frozen = weights.astype(">f8")
    frozen.flags.writeable = False
    assert torch.equal(kmeans_plusplus(x, 5, seed=0, weights=weights[::-1].copy()[::-1], initial=initial), want)
    assert torch.equal(kmeans_plusplus(x, 5, seed=0, weights=frozen, initial=initial[::-1].copy()[::-1]), want)
    for bad in ({1, 2}, ["a"], object()):
        with pytest.raises(TypeError, match="expected initial as numbers"):
            kmeans_plusplus(x, 5, seed=0, initial=bad)
    with pytest.raises(ValueError, match="initial"):
        kmeans_plusplus(x, 5, seed=0, initial=np.array([2**63], "u8"))
