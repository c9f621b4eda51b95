import csv
from dataclasses import replace

import pytest
import torch
from matplotlib.image import imread

import saal_fast
from saal_fast import _native
from saal_fast.experiments.demo import run
from saal_fast.experiments.demo.pipeline import (
    REFERENCE_TOLERANCE,
    compare_with_reference,
    largest_difference,
    trained_model,
)
from saal_fast.experiments.demo.report import CSV_COLUMNS, table


def rows_of(folder):
    with (folder / "picks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def has_core():
    try:
        _native.core()
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def model(demonstration):
    """The demonstration's network, trained again."""
    return trained_model(demonstration.partition)


def test_pictures_and_table_are_written(demonstration):
    out = demonstration.partition.settings.out
    assert sorted(path.name for path in out.iterdir()) == ["histogram.png", "picks.csv", "picks.png"]
    for name in ("histogram.png", "picks.png"):
        picture = imread(out / name)
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 0.05


def test_the_table_holds_the_picks(demonstration):
    partition, result = demonstration.partition, demonstration.result
    rows = rows_of(partition.settings.out)
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5]
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(result.scores.topk(5).values.tolist(), rel=1e-5)
    for row in rows:
        assert int(row["index"]) in partition.pool
        assert row["true"] == partition.data.classes[partition.data.labels[int(row["index"])]]


def test_the_outcome_is_printed(demonstration):
    result, printed = demonstration.result, demonstration.printed
    assert table(result.picks) in printed
    assert f"{result.accuracy:.1%} right of the held-out samples" in printed
    assert f"{result.difference:.1e}" in printed
    assert f"SAAL, {result.engine} engine" in printed
    assert result.engine != "reference"
    assert 0 < result.timing.forward < result.timing.reference
    assert result.timing.fast > 0


def test_the_global_random_state_stays(demonstration):
    before, after = demonstration.states
    assert before.equal(after)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("diversity", [None, pytest.param("kmeans++", marks=pytest.mark.slow)])
def test_picks_are_those_of_select(demonstration, partition, model, diversity):
    if diversity is not None and not has_core():
        pytest.skip("needs the C++ core")
    shown = demonstration.partition if diversity is None else partition(diversity=diversity)
    picks = demonstration.result.picks if diversity is None else run(shown).picks
    pool, settings = shown.data.images[shown.pool], shown.settings
    chosen = saal_fast.select(model, pool, 5, settings.rho, diversity=diversity, seed=settings.seed)
    assert [pick.index for pick in picks] == shown.pool[chosen].tolist()


@pytest.mark.slow
def test_same_seed_same_csv(demonstration, partition):
    again = partition()
    run(again)
    first, second = (p.settings.out / "picks.csv" for p in (demonstration.partition, again))
    assert first.read_bytes() == second.read_bytes()


def test_scores_unlike_the_reference_are_refused(demonstration, model):
    partition = demonstration.partition
    part = partition.data.images[partition.pool[:8]]
    scores = saal_fast.score(model, part, details=True)
    assert compare_with_reference(model, part, scores, 0.05) <= REFERENCE_TOLERANCE
    for factor in (1 + 2 * REFERENCE_TOLERANCE, float("nan")):
        with pytest.raises(RuntimeError, match=r"differ from the reference's by (2\.0e-03|nan)"):
            compare_with_reference(model, part, replace(scores, perturbed_loss=scores.perturbed_loss * factor), 0.05)


def test_largest_difference_is_relative_but_blind_to_rounding():
    reference = torch.tensor([2.0, 1.0, 1e-9])
    assert largest_difference(reference, reference) == 0
    assert largest_difference(torch.tensor([2.0, 1.1, 1e-9]), reference) == pytest.approx(0.1)
    assert largest_difference(torch.tensor([2.0, 1.0, 3e-9]), reference) == pytest.approx(1e-6)
