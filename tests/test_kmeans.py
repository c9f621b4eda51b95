from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saal_fast import _core, _native
from saal_fast.kmeans import draw_uniforms, kmeans_plusplus, kmeans_plusplus_reference

ALMOST_ONE = 1.0 - 2.0**-53


def native(x: np.ndarray, k: int, first: str, uniforms: Any, *, threads: int = 1, isa: str = "") -> list[int]:
    """The C++ path with given uniforms; columns must be next to each other."""
    return _core.kmeans_plusplus(x, k, first, np.asarray(uniforms, np.float64), threads, isa).tolist()


def reference(x: Any, k: int, first: str, uniforms: Any) -> list[int]:
    return kmeans_plusplus_reference(x, k, first=first, uniforms=uniforms).tolist()


# ---- the same uniforms, the same rows


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, str, list[float]]:
    """Matrices of odd shapes: spread out, with duplicates, constant, far from the origin, tiny and huge."""
    n = draw(st.one_of(st.integers(1, 12), st.integers(250, 600)))
    dim = draw(st.one_of(st.just(1), st.integers(1, 40)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = generator.standard_normal((n, dim))
    if draw(st.booleans()):
        x = x[generator.integers(0, draw(st.integers(1, n)), n)]  # few distinct rows; often just one
    if draw(st.booleans()):
        x = x.round()
    x = x * draw(st.sampled_from([1.0, 1e-12, 1e12])) + draw(st.sampled_from([0.0, -3.0, 1e6]))
    x = x.astype(draw(st.sampled_from([np.float32, np.float64])))
    k = draw(st.sampled_from(sorted({1, n, min(n, 2), min(n, 7)}))) if n < 50 else draw(st.integers(1, 8))
    u = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.25, 0.5, ALMOST_ONE]))
    uniforms = draw(st.lists(u, min_size=k, max_size=k))
    return x, k, draw(st.sampled_from(["random", "argmax"])), uniforms


@given(problems())
@settings(deadline=None, max_examples=150)
def test_native_path_chooses_the_references_rows(problem: tuple[np.ndarray, int, str, list[float]]) -> None:
    x, k, first, uniforms = problem
    expected = reference(x, k, first, uniforms)
    assert len(set(expected)) == k
    assert all(0 <= row < len(x) for row in expected)
    for isa in _core.usable_isas():
        assert native(x, k, first, uniforms, isa=isa) == expected, isa


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_agree_over_several_groups_of_blocks(dim: int, dtype: type) -> None:
    generator = np.random.default_rng(dim)
    x = generator.standard_normal((140_001, dim)).astype(dtype)  # three groups of 256 blocks of 256 rows
    uniforms = np.concatenate([generator.random(10), [0.0, ALMOST_ONE]])
    expected = reference(x, 12, "random", uniforms)
    assert len({row // 65_536 for row in expected}) > 1
    assert native(x, 12, "random", uniforms) == expected


def test_rows_do_not_depend_on_threads_or_instruction_set() -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((4_000, 70)).astype(np.float32)  # enough numbers for four threads
    uniforms = generator.random(40)
    expected = native(x, 40, "random", uniforms, threads=1)
    for threads in (2, 3, 4, 64):
        for isa in _core.usable_isas():
            assert native(x, 40, "random", uniforms, threads=threads, isa=isa) == expected


def test_targets_on_the_border_of_rows_and_blocks() -> None:
    # From row 0 every other row has weight 1: with u = j / 512 the target is the whole number j, exactly the
    # sum of all weights before row j + 1.
    x = np.ones((513, 1))
    x[0] = 0.0
    for j in (0, 1, 254, 255, 256, 511):
        assert native(x, 2, "random", [0.0, j / 512]) == [0, j + 1] == reference(x, 2, "random", [0.0, j / 512])


def test_the_public_function_draws_the_uniforms_of_its_seed() -> None:
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    expected = kmeans_plusplus_reference(x, 20, uniforms=draw_uniforms(20, 7))
    rows = kmeans_plusplus(x, 20, seed=7)
    assert rows.tolist() == expected.tolist()
    assert (rows.dtype, rows.shape, rows.device.type) == (torch.int64, (20,), "cpu")


# ---- the right distribution


def ordered_outcomes(x: np.ndarray, k: int, power: int = 2) -> dict[tuple[int, ...], float]:
    """The exact probability of every ordered choice of k rows of integers, each ∝ (distance²)^(power / 2)."""
    integers = x.astype(int)
    n = len(integers)
    squared = ((integers[:, None] - integers[None]) ** 2).sum(axis=2).tolist()
    outcomes = {}
    for rows in itertools.permutations(range(n), k):
        probability = Fraction(1, n)
        for t in range(1, k):
            if power == 2:
                weights = [Fraction(min(squared[i][c] for c in rows[:t])) for i in range(n)]
            else:
                weights = [
                    Fraction(min(squared[i][c] for c in rows[:t]) ** (power / 2)) for i in range(n)
                ]  # as floats have it
            if sum(weights) == 0:
                weights = [Fraction(i not in rows[:t]) for i in range(n)]
            probability *= weights[rows[t]] / sum(weights)
        outcomes[rows] = float(probability)
    assert sum(outcomes.values()) == pytest.approx(1.0, abs=1e-9)
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


SEVEN = np.array([[0, 0], [3, 1], [3, 1], [-2, 4], [5, 5], [1, -1], [8, 0]], np.float32)  # row 2 repeats row 1
FEW = np.array([[0], [0], [0], [2], [2]], np.float32)  # two distinct rows: the third draw has no weight left


@pytest.fixture(scope="module", params=[(SEVEN, 3), (SEVEN, 4), (FEW, 4)], ids=["k=3", "k=4", "few"])
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, int, Counter[tuple[int, ...]]]:
    x, k = request.param
    uniforms = np.random.default_rng(20).random((60_000, k))
    return x, k, Counter(tuple(native(x, k, "random", u)) for u in uniforms)


def test_every_ordered_outcome_is_as_likely_as_d_squared_sampling_says(drawn: Any) -> None:
    x, k, counts = drawn
    assert p_value(counts, ordered_outcomes(x, k)) > 1e-3


@pytest.mark.parametrize("power", [0, 1])
def test_control_the_chi_squared_test_rejects_other_powers_of_the_distance(drawn: Any, power: int) -> None:
    x, k, counts = drawn
    if x is FEW:
        pytest.skip("from any row of two distinct ones, every power of the distance draws alike")
    other = ordered_outcomes(x, k, power) if power else uniform_outcomes(len(x), k)
    assert p_value(counts, other) < 1e-6
    # ... and the other way round: draws by that rule fail the test that ours pass.
    keys = list(other)
    picks = np.random.default_rng(3).choice(len(keys), 60_000, p=np.array(list(other.values())))
    wrong = Counter(keys[pick] for pick in picks)
    assert p_value(wrong, ordered_outcomes(x, k)) < 1e-6
    assert p_value(wrong, other) > 1e-3


def uniform_outcomes(n: int, k: int) -> dict[tuple[int, ...], float]:
    orders = list(itertools.permutations(range(n), k))
    return dict.fromkeys(orders, 1.0 / len(orders))


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


def test_a_constant_matrix_is_sampled_uniformly() -> None:
    x = np.full((6, 3), 2.5)
    uniforms = np.random.default_rng(5).random((30_000, 2))
    counts = Counter(tuple(native(x, 2, "random", u)) for u in uniforms)
    assert p_value(counts, uniform_outcomes(6, 2)) > 1e-3


def test_one_row() -> None:
    assert kmeans_plusplus(torch.tensor([[1.0, 2.0]]), 1, seed=0).tolist() == [0]
    assert kmeans_plusplus(torch.tensor([1.0]), 1, first="argmax").tolist() == [0]


def test_seeds_repeat_and_differ() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert kmeans_plusplus(x, 30, seed=5).equal(kmeans_plusplus(x, 30, seed=5))
    assert not kmeans_plusplus(x, 30, seed=5).equal(kmeans_plusplus(x, 30, seed=6))
    assert not kmeans_plusplus(x, 30).equal(kmeans_plusplus(x, 30))


def test_a_generator_moves_on_by_k_draws() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    one, other = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    first, second = kmeans_plusplus(x, 10, seed=one), kmeans_plusplus(x, 10, seed=one)
    assert first.equal(kmeans_plusplus(x, 10, seed=4))
    assert not first.equal(second)
    torch.rand(20, dtype=torch.float64, generator=other)
    assert one.get_state().equal(other.get_state())


@pytest.mark.parametrize("seed", [None, 3])
def test_the_global_generators_are_not_touched(seed: int | None) -> None:
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    kmeans_plusplus(torch.randn(50, generator=torch.Generator()), 5, seed=seed)
    assert torch.get_rng_state().equal(before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)


# ---- what x may be

WHOLE = np.random.default_rng(8).integers(0, 100, (40, 6))
EXPECTED = reference(WHOLE.astype(np.float64), 9, "random", draw_uniforms(9, 11))


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
        ([0.5], "expected k=2 uniforms, got 1"),
        ([0.5] * 3, "expected k=2 uniforms, got 3"),
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
    with pytest.raises(TypeError):
        native(np.zeros((4, 3), np.int64), 1, "random", [0.5])


# ---- a good citizen of the interpreter


class AlarmError(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers, as POSIX has them")
def test_signals_are_handled_between_centres() -> None:
    def interrupt(*_: object) -> None:
        raise AlarmError

    x = torch.randn(60_000, 64, generator=torch.Generator().manual_seed(0))  # k = N takes a minute or more
    before = signal.signal(signal.SIGALRM, interrupt)
    start = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(AlarmError):
            kmeans_plusplus(x, len(x), seed=0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 20.0


def test_other_threads_run_meanwhile() -> None:
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    worker = threading.Thread(target=kmeans_plusplus, args=(x, 1000), kwargs={"seed": 0})
    worker.start()
    turns = 0
    while worker.is_alive():  # holding the interpreter's lock, the worker would leave it a turn or two
        time.sleep(0.001)
        turns += 1
    assert turns > 20


# ---- CUDA

needs_no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")


def cuda_module() -> Any:
    module = _native.cuda()
    if module is None:
        pytest.skip(f"the CUDA module is {_native.why_no_cuda()}")
    return module


@needs_no_device
def test_the_cuda_module_says_that_there_is_no_device() -> None:
    cuda = cuda_module()
    count, why = cuda.devices()
    assert count == 0
    assert why
    options = {"dtype": "float32", "rows": 1, "dim": 1, "row_stride": 1, "k": 1, "first": "random"}
    with pytest.raises(RuntimeError, match="no CUDA device: "):
        cuda.kmeans_plusplus(x=0, uniforms=np.zeros(1), device=0, stream=0, workspace=0, **options)


def test_the_cuda_workspace_holds_the_tree_of_weights() -> None:
    cuda = cuda_module()
    assert cuda.workspace_bytes(1, 1) == 8 * (1 + 1 + 1 + 2)
    assert cuda.workspace_bytes(65_537, 10) == 8 * (65_537 + 257 + 2 + 20)


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    cuda_module()
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("first", ["random", "argmax"])
@pytest.mark.parametrize(("n", "dim", "k"), [(1, 1, 1), (7, 3, 7), (300, 17, 40), (70_001, 1, 90), (5000, 64, 200)])
def test_cuda_chooses_the_references_rows(
    device: torch.device, *, n: int, dim: int, k: int, first: str, dtype: torch.dtype
) -> None:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(n)).to(dtype)
    expected = kmeans_plusplus_reference(x, k, first=first, uniforms=draw_uniforms(k, 3))
    rows = kmeans_plusplus(x.to(device), k, first=first, seed=3)
    assert rows.device.type == "cpu"
    assert rows.equal(expected)


@pytest.mark.gpu
def test_cuda_with_duplicates_strides_and_another_stream(device: torch.device) -> None:
    x = torch.from_numpy(WHOLE).float()[torch.arange(40) % 5]
    expected = kmeans_plusplus(x, 40, seed=1)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        there = x.t().contiguous().to(device).t()
        assert kmeans_plusplus(there, 40, seed=1).equal(expected)
        padded = torch.full((40, 11), torch.nan, device=device)
        padded[:, 3:9] = there
        assert kmeans_plusplus(padded[:, 3:9], 40, seed=1).equal(expected)


@pytest.mark.gpu
def test_cuda_names_the_first_row_that_is_not_finite(device: torch.device) -> None:
    x = torch.ones(600, 20, device=device)
    x[377, 19] = torch.nan
    with pytest.raises(ValueError, match="got NaN or inf first in row 377"):
        kmeans_plusplus(x, 3, seed=0)


@pytest.mark.gpu
def test_without_the_module_a_cuda_tensor_is_copied_and_the_log_says_so(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_native, "cuda", lambda: None)
    x = torch.from_numpy(WHOLE).double()
    assert kmeans_plusplus(x.to(device), 9, seed=11).tolist() == EXPECTED
    assert "copies x to the CPU" in caplog.text
