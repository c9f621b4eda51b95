import csv

import matplotlib.image
import pytest
from typer.testing import CliRunner

from saal_fast.commands import app
from saal_fast.experiments import figure2, figure6, plots
from saal_fast.experiments.cells import Cell, Curve, curve
from saal_fast.experiments.protocol import STRATEGIES as KNOWN
from saal_fast.experiments.table1 import Row

STRATEGIES = "random,saal"


@pytest.fixture
def run(tmp_path, monkeypatch, as_small):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["experiment", *arguments])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def painted(path):
    """A PNG that is not of one colour."""
    image = matplotlib.image.imread(path)
    return image.shape[0] > 200 and image.shape[1] > 500 and image[..., :3].std() > 0.01


def test_table1_then_figure6(run, tmp_path, small):
    arguments = ["--dataset", "digits", "--strategies", STRATEGIES, "--seeds", "2"]
    result = run("table1", *arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saal-fast-results"
    assert "| random | " in result.stdout
    assert result.stdout == (folder / "table1-digits-adam-cpu.md").read_text()
    assert result.stderr.count("% after 30 labels") == 4
    lines = rows_of(folder / "table1-digits-adam-cpu.csv")
    assert [(line["strategy"], line["seed"]) for line in lines] == [(s, n) for s in ("random", "saal") for n in ("0", "1")]
    for line in lines:
        found = curve(Cell(small(), line["strategy"], int(line["seed"])), folder)
        assert float(line["last"]) == pytest.approx(found.last, rel=1e-5)

    again = run("table1", *arguments)
    assert (again.stdout, again.stderr) == (result.stdout, "")

    drawn = run("figure6", *arguments)
    assert drawn.exit_code == 0, drawn.output
    points = rows_of(folder / "figure6-digits-adam-cpu.csv")
    assert len(points) == 2 * 2 * 3
    assert [p["labels"] for p in points[:3]] == ["20", "25", "30"]
    assert painted(folder / "figure6-digits-adam-cpu.png")


def test_table1_by_sam(run, small, tmp_path):
    result = run("table1", "--dataset", "digits", "--optimizer", "sam", "--strategies", "random", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "digits, sam, preset cpu" in result.stdout
    assert curve(Cell(small(optimizer="sam"), "random", 0), tmp_path / "saal-fast-results") is not None


def test_draw_only_runs_nothing(run, tmp_path):
    result = run("table1", "--dataset", "digits", "--draw-only")
    assert result.exit_code == 0
    assert "(no whole cell)" in result.stdout
    assert not (tmp_path / "saal-fast-results" / "digits").exists()


def test_figure2(run, tmp_path):
    strategies = "random,entropy,ll4al,saal,saal-kmeans++"
    result = run("figure2", "--dataset", "digits", "--strategies", strategies, "--repeats", "1")
    assert result.exit_code == 0, result.output
    lines = rows_of(tmp_path / "saal-fast-results" / "figure2-digits-cpu.csv")
    assert [line["name"] for line in lines] == [
        "adam",
        "sam",
        "random",
        "entropy",
        "adam, with ll4al's own",
        "ll4al",
        "saal, reference",
        "saal, vmap",
        "saal, ghost",
        "saal-kmeans++",
    ]
    assert {line["kind"] for line in lines} == {"training", "acquisition"}
    assert all(float(line["seconds"]) > 0 for line in lines)
    assert {line["samples"] for line in lines if line["kind"] == "acquisition"} == {"40"}
    assert {line["samples"] for line in lines if line["kind"] == "training"} == {"25"}
    assert painted(tmp_path / "saal-fast-results" / "figure2-digits-cpu.png")
    assert "| acquisition: saal, ghost |" in result.stdout


def test_figure2_counts_epochs_and_long_runs_once(monkeypatch):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(figure2.time, "perf_counter", lambda: next(clock))

    class Slow:
        def select(self, *_, **__):
            pass

    class Model:
        def eval(self):
            pass

    assert figure2._select(Slow(), Model(), None, 1, None, repeats=3) == 20.0
    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 23.0, 30.0, 32.0])
    assert figure2._select(Slow(), Model(), None, 1, None, repeats=3) == 2.0


def test_every_strategy_has_a_colour_of_its_own():
    assert len(set(plots.colours(list(KNOWN)))) == len(KNOWN)


def test_figure6_draws_one_seed_and_many(tmp_path, small):
    rows = [
        Row("saal", {0: Curve((20, 30), (50.0, 60.0))}, "–"),
        Row("random", {0: Curve((20, 30), (40.0, 50.0)), 2: Curve((20, 30), (44.0, 51.0))}, "–"),
    ]
    figure6.write(small(), rows, tmp_path / "curves")
    assert [(p["strategy"], p["seed"], p["labels"], p["accuracy"]) for p in rows_of(tmp_path / "curves.csv")][-1] == (
        "random",
        "2",
        "30",
        "51",
    )
    assert painted(tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["table1", "--strategies", "saal,luck"], "expected strategies among random, entropy"),
        (["figure2", "--strategies", "luck"], "got 'luck'"),
        (["figure6", "--dataset", "digits"], "holds no whole cell of these: run table1 first"),
        (["table1", "--dataset", "svhn"], "svhn does not lie whole in the folder data"),
        (["table1", "--dataset", "digits", "--results", "file/results"], "Not a directory"),
        (["table1", "--dataset", "fashion-mnist", "--data-root", "absent"], "the data root is not a folder: absent"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(run, tmp_path, arguments, complaint):
    (tmp_path / "file").touch()
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"saal-fast experiment {arguments[0]}: ")
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--seeds", "0"], ["--dataset", "mnist"], ["--preset", "fast"], ["--optimizer", "sgd"]]
)
def test_unknown_choices_are_refused(run, arguments):
    result = run("table1", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_a_bad_cell_stops_no_other(run, tmp_path, small):
    results = tmp_path / "saal-fast-results"
    bad = Cell(small(), "random", 0).folder(results)
    bad.mkdir(parents=True)
    (bad / "settings.json").write_text("{}")
    result = run("table1", "--dataset", "digits", "--strategies", "random,entropy", "--seeds", "1")
    assert result.exit_code == 1
    assert "random, seed 0: " in result.stderr
    assert "1 cells failed" in result.stderr
    assert "| entropy |" in result.stdout
    assert "| random |" not in result.stdout
