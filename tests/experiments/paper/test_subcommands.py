import csv

import matplotlib.image
import pytest
from typer.testing import CliRunner

from saal_fast.experiments.commands import app
from saal_fast.experiments.paper import colours, figure2, figure6
from saal_fast.experiments.paper.cells import Cell, Curve, read_curve
from saal_fast.experiments.paper.protocol import STRATEGIES as KNOWN
from saal_fast.experiments.paper.table1 import Row

STRATEGIES = "random,saal"
SMALL = "digits-adam-cpu-candidates40-rounds2-epochs1-width2"


@pytest.fixture
def run(tmp_path, monkeypatch, small_options):
    """Runs a subcommand by the small protocol; a later option replaces an earlier one."""
    monkeypatch.chdir(tmp_path)
    return lambda command, *arguments: CliRunner().invoke(app, ["experiment", command, *small_options, *arguments])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def painted(path):
    """A PNG that is not of one colour."""
    image = matplotlib.image.imread(path)
    return image.shape[0] > 200 and image.shape[1] > 500 and image[..., :3].std() > 0.01


def test_table1_then_figure6(run, tmp_path, small):
    arguments = ["--strategies", STRATEGIES, "--seeds", "2"]
    result = run("table1", *arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "saal-fast-results"
    assert "| random | " in result.stdout
    assert result.stdout == (folder / f"table1-{SMALL}.md").read_text()
    assert result.stderr.count("% after 40 labels") == 4
    lines = rows_of(folder / f"table1-{SMALL}.csv")
    assert [(line["strategy"], line["seed"]) for line in lines] == [(s, n) for s in ("random", "saal") for n in ("0", "1")]
    for line in lines:
        found = read_curve(Cell(small(), line["strategy"], int(line["seed"])), folder)
        assert float(line["last"]) == pytest.approx(found.last, rel=1e-5)

    again = run("table1", *arguments)
    assert (again.stdout, again.stderr) == (result.stdout, "")

    drawn = run("figure6", *arguments)
    assert drawn.exit_code == 0, drawn.output
    points = rows_of(folder / f"figure6-{SMALL}.csv")
    assert len(points) == 2 * 2 * 3
    assert [p["labels"] for p in points[:3]] == ["20", "30", "40"]
    assert painted(folder / f"figure6-{SMALL}.png")


def test_table1_by_sam(run, small, tmp_path):
    result = run("table1", "--optimizer", "sam", "--strategies", "random", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "digits, sam, preset cpu" in result.stdout
    assert read_curve(Cell(small(optimizer="sam"), "random", 0), tmp_path / "saal-fast-results") is not None


def test_draw_only_runs_nothing(run, tmp_path):
    result = run("table1", "--draw-only")
    assert result.exit_code == 0
    assert "(no whole cell)" in result.stdout
    assert not (tmp_path / "saal-fast-results" / "digits").exists()


@pytest.mark.slow  # quickly, it is drawn of settings in place of the presets
def test_figure2(run, tmp_path):
    strategies = "random,entropy,ll4al,saal,saal-kmeans++"
    result = run("figure2", "--strategies", strategies, "--repeats", "1")
    assert result.exit_code == 0, result.output
    lines = rows_of(tmp_path / "saal-fast-results" / f"figure2-{SMALL.replace('adam-', '')}.csv")
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
    assert {line["samples"] for line in lines if line["kind"] == "training"} == {"30"}
    assert painted(tmp_path / "saal-fast-results" / f"figure2-{SMALL.replace('adam-', '')}.png")
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
    assert len(set(colours.colours(KNOWN))) == len(KNOWN)


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
        (["figure2", "--device", "abacus"], "expected a device that torch has here (cpu, cuda, cuda:1, ...), got 'abacus'"),
        (["table1", "--device", "cuda:99"], "got 'cuda:99'"),
        (
            [
                "figure6",
            ],
            "holds no whole cell of these: run table1 first",
        ),
        (["table1", "--dataset", "svhn"], "the folder data does not hold svhn"),
        (["table1", "--results", "file/results"], "Not a directory"),
        (["table1", "--candidates", "9"], "expected candidates >= 10"),
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


def spoil(cell, results):
    folder = cell.folder(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text("{}")


def test_a_bad_cell_stops_no_other(run, tmp_path, small):
    spoil(Cell(small(), "random", 0), tmp_path / "saal-fast-results")
    for extra in ([], ["--draw-only"]):
        result = run("table1", "--strategies", "random,entropy", "--seeds", "1", *extra)
        assert result.exit_code == 1
        assert result.stderr.count("settings.json is not what was written") == 1
        assert f"1 cells failed: {Cell(small(), 'random', 0)}" in result.stderr
        assert "| entropy |" in result.stdout
        assert "| random |" not in result.stdout
    drawn = run(
        "figure6",
    )
    assert drawn.exit_code == 1
    assert "settings.json is not what was written" in drawn.stderr
    assert {p["strategy"] for p in rows_of(tmp_path / "saal-fast-results" / f"figure6-{SMALL}.csv")} == {"entropy"}


@pytest.mark.slow
def test_all_cells_there_are_drawn_where_none_is_named(run, tmp_path):
    for strategies, seeds in (("margin", "1"), ("random,least-confidence", "2")):
        assert run("table1", "--strategies", strategies, "--seeds", seeds).exit_code == 0
    result = run("table1", "--draw-only")
    drawn = [[cell.strip() for cell in line.split("|")[1:5]] for line in result.stdout.splitlines()[4:]]
    assert [(row[0], row[3]) for row in drawn] == [("random", "2"), ("margin", "1"), ("least-confidence", "2")]
    one = run("table1", "--draw-only", "--strategies", "least-confidence,random", "--seeds", "1")
    assert [line.split("|")[1].strip() for line in one.stdout.splitlines()[4:]] == ["least-confidence", "random"]
    assert "| 1 |" in one.stdout
    run(
        "figure6",
    )
    points = rows_of(tmp_path / "saal-fast-results" / f"figure6-{SMALL}.csv")
    assert {(p["strategy"], p["seed"]) for p in points} == {
        ("random", "0"),
        ("random", "1"),
        ("margin", "0"),
        ("least-confidence", "0"),
        ("least-confidence", "1"),
    }


@pytest.mark.slow
def test_settings_in_place_of_the_presets_have_cells_of_their_own(run, tmp_path, small):
    base = ["--strategies", "random", "--seeds", "1"]
    changes = ["--width", "3", "--rounds", "1", "--epochs", "2", "--candidates", "30"]
    for arguments in (base, base + changes):
        assert run("table1", *arguments).exit_code == 0
    results = tmp_path / "saal-fast-results"
    plain, changed = small(), small(width=3, rounds=1, epochs=2, candidates=30)
    assert read_curve(Cell(plain, "random", 0), results).labelled == (20, 30, 40)
    assert read_curve(Cell(changed, "random", 0), results).labelled == (20, 30)
    assert changed.name == "adam-cpu-candidates30-rounds1-epochs2-width3"
    drawn = run("table1", "--draw-only", *changes)
    assert "candidates 30, rounds 1, epochs 2, width 3" in drawn.stdout
    assert "20 to 30 labels" in drawn.stdout
    assert run("figure6", *changes).exit_code == 0
    assert (results / f"figure6-digits-{changed.name}.png").is_file()
    timed = run("figure2", "--strategies", "random", "--repeats", "1", *changes)
    assert "| acquisition: random |" in timed.stdout
    assert "| 30 |" in timed.stdout


def test_home_is_where_a_shell_says(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    arguments = ["--strategies", "random", "--seeds", "1", "--results=~/cells", "--out=~/out"]
    assert run("table1", *arguments).exit_code == 0
    assert run("table1", *arguments[:-1]).exit_code == 0
    assert (tmp_path / "home" / "cells" / f"table1-{SMALL}.csv").is_file()  # beside the cells, where nothing else is said
    assert (tmp_path / "home" / "out" / f"table1-{SMALL}.md").is_file()
    assert (tmp_path / "home" / "cells" / "digits").is_dir()
    assert not (tmp_path / "~").exists()
