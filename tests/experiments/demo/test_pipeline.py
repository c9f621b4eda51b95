import csv
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from typing import NamedTuple
from unittest import mock

import pytest
import torch
from demonstrations import small_settings
from matplotlib.image import imread
from torch import nn

import saal_fast
from saal_fast import _native
from saal_fast.experiments.demo import prepare, run
from saal_fast.experiments.demo.pipeline import TOLERANCE, Result, largest_difference
from saal_fast.experiments.demo.report import CSV_COLUMNS, table
from saal_fast.experiments.demo.task import Task


def rows_of(folder):
    with (folder / "picks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def has_core():
    try:
        _native.core()
    except ImportError:
        return False
    return True


NEEDS_CORE = pytest.mark.skipif(not has_core(), reason="needs the C++ core")


class Demonstration(NamedTuple):
    """A run, what it scored with, what it printed, and the state that it had to leave alone."""

    task: Task
    result: Result
    model: nn.Module
    pool: torch.Tensor
    printed: str
    left_alone: bool


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """Runs the demonstration by its seed and diversity, each once for all tests."""

    @cache
    def ran(seed=3, diversity=None, again=False):
        drawn = prepare(small_settings(tmp_path_factory.mktemp("demo") / "out", seed=seed, diversity=diversity))
        state, grad = torch.get_rng_state(), torch.is_grad_enabled()
        original = saal_fast.score
        with mock.patch("saal_fast.score", side_effect=original) as score, redirect_stdout(StringIO()) as printed:
            result = run(drawn)
        model, pool = score.call_args_list[0].args[:2]
        left_alone = torch.get_rng_state().equal(state) and torch.is_grad_enabled() == grad
        return Demonstration(drawn, result, model, pool, printed.getvalue(), left_alone)

    return ran


def test_demo_tells_and_writes_what_it_found(demonstration):
    drawn, result, _, _, printed, left_alone = demonstration()
    assert left_alone

    out = drawn.settings.out
    assert sorted(path.name for path in out.iterdir()) == ["histogram.png", "picks.csv", "picks.png"]
    for name in ("histogram.png", "picks.png"):
        picture = imread(out / name)
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 0.05

    rows = rows_of(out)
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(result.scores.topk(5).values.tolist(), rel=1e-5)
    for row in rows:
        assert int(row["index"]) in drawn.pool
        assert row["true"] == drawn.data.classes[drawn.data.labels[int(row["index"])]]

    assert table(result.picks) in printed
    assert f"{result.accuracy:.1%} right of the held-out samples" in printed
    assert f"{result.difference:.1e}" in printed
    assert f"SAAL, {result.engine} engine" in printed
    assert result.engine != "reference"
    assert 0 < result.timing.forward < result.timing.reference
    assert result.timing.fast > 0


@pytest.mark.parametrize("diversity", [None, *(pytest.param(name, marks=NEEDS_CORE) for name in ("kmeans++", "badge"))])
def test_picks_are_those_of_select(demonstration, diversity):
    drawn, result, model, pool, _, _ = demonstration(diversity=diversity)
    chosen = saal_fast.select(model, pool, 5, drawn.settings.rho, diversity=diversity, seed=3)
    assert [pick.index for pick in result.picks] == drawn.pool[chosen].tolist()


def test_same_seed_same_csv(demonstration):
    runs = demonstration(), demonstration(again=True), demonstration(seed=2)
    first, again, other = ((ran.task.settings.out / "picks.csv").read_bytes() for ran in runs)
    assert first == again
    assert first != other


@NEEDS_CORE
def test_diversity_spreads_the_scores(demonstration):
    def span(ran):
        scores = [float(row["score"]) for row in rows_of(ran.task.settings.out)]
        return max(scores) - min(scores)

    assert span(demonstration(diversity="kmeans++")) > span(demonstration())


def test_scores_unlike_the_reference_are_refused(task, monkeypatch):
    original = saal_fast.score

    def score(*args, engine="auto", **options):
        answer = original(*args, engine=engine, **options)
        return answer if engine != "reference" else answer * (1 + 2 * TOLERANCE)

    monkeypatch.setattr(saal_fast, "score", score)
    with pytest.raises(RuntimeError, match=r"differ from the reference's by 2\.0e-03"):
        run(task())


def test_largest_difference_is_relative_but_blind_to_rounding():
    reference = torch.tensor([2.0, 1.0, 1e-9])
    assert largest_difference(reference, reference) == 0
    assert largest_difference(torch.tensor([2.0, 1.1, 1e-9]), reference) == pytest.approx(0.1)
    assert largest_difference(torch.tensor([2.0, 1.0, 3e-9]), reference) == pytest.approx(1e-6)
