import csv

import pytest
import torch
from matplotlib.image import imread

import saal_fast
from saal_fast import _native
from saal_fast.experiments.demo import run
from saal_fast.experiments.demo.pipeline import TOLERANCE, largest_difference
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


def test_demo_tells_and_writes_what_it_found(task, capsys):
    drawn = task()
    state, grad = torch.get_rng_state(), torch.is_grad_enabled()
    result = run(drawn)
    assert torch.get_rng_state().equal(state)
    assert torch.is_grad_enabled() == grad

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

    told = capsys.readouterr().out
    assert table(result.picks) in told
    assert f"{result.accuracy:.1%} right of the held-out samples" in told
    assert f"{result.difference:.1e}" in told
    assert f"SAAL, {result.engine} engine" in told
    assert result.engine != "reference"
    assert 0 < result.timing.forward < result.timing.reference
    assert result.timing.fast > 0


def test_picks_are_those_of_select(task, monkeypatch):
    kept = {}

    def score(model, pool, *args, **options):
        kept.setdefault("model", model)
        kept.setdefault("pool", pool)
        return original(model, pool, *args, **options)

    original = saal_fast.score
    monkeypatch.setattr(saal_fast, "score", score)
    ways = (None, "kmeans++", "badge") if has_core() else (None,)
    for diversity in ways:
        kept.clear()
        drawn = task(diversity=diversity, seed=3)
        picked = [pick.index for pick in run(drawn).picks]
        chosen = saal_fast.select(kept["model"], kept["pool"], 5, drawn.settings.rho, diversity=diversity, seed=3)
        assert picked == drawn.pool[chosen].tolist()


def test_same_seed_same_csv(task, tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(task(out=tmp_path / folder, seed=seed))
    first, again, other = ((tmp_path / folder / "picks.csv").read_bytes() for folder in "abc")
    assert first == again
    assert first != other


@pytest.mark.skipif(not has_core(), reason="needs the C++ core")
def test_diversity_spreads_the_scores(task, tmp_path):
    run(task(out=tmp_path / "top"))
    run(task(out=tmp_path / "spread", diversity="kmeans++"))

    def span(folder):
        scores = [float(row["score"]) for row in rows_of(tmp_path / folder)]
        return max(scores) - min(scores)

    assert span("spread") > span("top")


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
