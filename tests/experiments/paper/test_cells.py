import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from saal_fast.experiments.paper.cells import Cell, Curve, existing_cells, read_curve, run, run_all, summarize
from saal_fast.experiments.paper.splits import CLASSES
from saal_fast.learning import LockedError, store


def kept(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".json", ".pt")}


def test_a_cell_is_run_to_its_curve(digits, small, tmp_path):
    cell = Cell(small(), "entropy", 1)
    assert read_curve(cell, tmp_path) is None
    found = run(cell, digits, tmp_path)
    assert found.labelled == (20, 30, 40)
    assert len(found.accuracy) == 3
    assert all(0 <= a <= 100 for a in found.accuracy)
    assert read_curve(cell, tmp_path) == found
    name = "adam-cpu-candidates40-rounds2-epochs1-width2"
    assert (tmp_path / "digits" / name / "entropy" / "seed-1" / "0003-fit.json").is_file()
    assert not list(tmp_path.rglob("*.part"))


def test_the_first_labels_are_the_same_for_all_strategies(digits, small, tmp_path):
    first = {run(Cell(small(), name, 0), digits, tmp_path).accuracy[0] for name in ("random", "margin", "saal-kmeans++")}
    assert len(first) == 1


@pytest.mark.parametrize("name", ["margin", pytest.param("saal", marks=pytest.mark.slow)])
def test_a_cell_cut_off_is_resumed_and_is_no_curve_before(digits, small, tmp_path, monkeypatch, name):
    cell = Cell(small(), name, 0)
    whole = run(cell, digits, tmp_path / "whole")
    write = store.Store.write

    def stop(self, name, content):
        if name == "0002-ask":
            raise KeyboardInterrupt
        write(self, name, content)

    monkeypatch.setattr(store.Store, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run(cell, digits, tmp_path / "cut")
    monkeypatch.undo()
    assert read_curve(cell, tmp_path / "cut") is None
    assert run(cell, digits, tmp_path / "cut") == whole
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


@pytest.mark.slow
def test_any_order_gives_the_same(digits, small, tmp_path):
    cells = [Cell(small(), name, seed) for name in ("random", "least-confidence") for seed in (0, 1)]
    logged = []
    for name, order in (("forth", cells), ("back", cells[::-1])):
        found = run_all(order, digits, tmp_path / name, log=logged.append)
        assert (list(found.curves), found.missing, found.failed) == (order, [], [])
    assert kept(tmp_path / "forth") == kept(tmp_path / "back")
    assert len(logged) == 8
    assert logged[0].startswith("digits, adam-cpu-candidates40-rounds2-epochs1-width2: random, seed 0: ")
    assert "% after 40 labels" in logged[0]
    assert list(run_all(cells, digits, tmp_path / "forth", log=logged.append).curves) == cells
    assert len(logged) == 8  # nothing was left to do


def test_a_cell_that_another_process_is_at_is_left_to_it(digits, small, tmp_path):
    cells = [Cell(small(), "random", seed) for seed in (0, 1)]
    lock = cells[0].folder(tmp_path).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError):
            run(cells[0], digits, tmp_path)
        logged = []
        assert run_all(cells, digits, tmp_path, log=logged.append).missing == [cells[0]]
        assert logged[0].endswith("another process is running it")
        assert read_curve(cells[1], tmp_path) is not None
        other.kill()
    assert run_all(cells, digits, tmp_path, log=logged.append).missing == []  # the lock went with the process


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import small
from saal_fast.experiments.paper.cells import Cell, run_all
from saal_fast.experiments.paper.splits import load_split
cells = [Cell(small(), name, seed) for name in ("random", "saal") for seed in (0, 1)]
run_all(cells, load_split("digits"), Path(sys.argv[2]), log=print)
"""


@pytest.mark.slow  # each process imports everything; quickly, one process is tested below to leave a cell to another
def test_two_processes_share_the_cells(digits, small, tmp_path):
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(tmp_path / "shared")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    cells = [Cell(small(), name, seed) for name in ("random", "saal") for seed in (0, 1)]
    run_all(cells, digits, tmp_path / "alone", log=lambda _: None)
    assert kept(tmp_path / "shared") == kept(tmp_path / "alone")
    assert all(f"{cell}: " in said for cell in cells)


def test_another_protocols_cells_are_not_mixed_in(digits, small, tmp_path):
    cell, other = (Cell(replace(small(), epochs=epochs), "random", 0) for epochs in (1, 2))
    run(cell, digits, tmp_path)
    assert read_curve(other, tmp_path) is None  # it has a folder of its own
    assert existing_cells(other.protocol, tmp_path) == []
    cell.folder(tmp_path).parents[1].rename(other.folder(tmp_path).parents[1])
    with pytest.raises(ValueError, match="holds a run of another protocol than"):
        read_curve(other, tmp_path)
    with pytest.raises(ValueError, match="holds another run: more was"):
        run(other, digits, tmp_path)


def test_the_cells_there_are_found(digits, small, tmp_path):
    cells = [Cell(small(), "entropy", seed) for seed in (2, 10)] + [Cell(small(), "saal", 0)]
    for cell in reversed(cells):
        cell.folder(tmp_path).mkdir(parents=True)
    for stray in ("luck/seed-0", "saal/seed-x", "saal/notes"):
        (cells[0].folder(tmp_path).parents[1] / stray).mkdir(parents=True)
    (cells[0].folder(tmp_path).parent / "seed-4").touch()
    assert existing_cells(small(), tmp_path) == cells
    assert existing_cells(small(optimizer="sam"), tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        TypeError("odd"),
        *(pytest.param(error, marks=pytest.mark.slow) for error in (ValueError("bad"), RuntimeError("odd"))),
    ],
)
def test_a_cell_that_fails_stops_no_other(digits, small, tmp_path, monkeypatch, error):
    cells = [Cell(small(), "random", seed) for seed in (0, 1)]
    write = store.Store.write

    def fail(self, name, content):
        if self.folder.name == "seed-0" and name == "0001-ask":
            raise error
        write(self, name, content)

    monkeypatch.setattr(store.Store, "write", fail)
    logged = []
    found = run_all(cells, digits, tmp_path, log=logged.append)
    assert (found.failed, found.missing, list(found.curves)) == (cells[:1], [], cells[1:])
    assert str(error) in logged[0]
    assert logged[0].startswith(f"{cells[0]}: ")
    monkeypatch.undo()
    assert list(run_all(cells, digits, tmp_path, log=logged.append).curves) == cells


def test_a_bad_cell_is_told_and_the_others_stand(digits, small, tmp_path):
    cells = [Cell(small(), "random", seed) for seed in (0, 1, 2)]
    one = run(cells[0], digits, tmp_path)
    for cell, content in ((cells[1], "{}"), (cells[2], None)):
        cell.folder(tmp_path).mkdir(parents=True)
        path = cell.folder(tmp_path) / "settings.json"
        path.mkdir() if content is None else path.write_text(content)
    logged = []
    found = summarize([*cells, Cell(small(), "random", 3)], tmp_path, logged.append)
    assert found.curves == {cells[0]: one}
    assert found.failed == cells[1:]
    assert [cell.seed for cell in found.missing] == [3]
    assert [line.partition(": ")[2].partition(": ")[0] for line in logged] == ["random, seed 1", "random, seed 2"]


def test_home_is_where_a_shell_says(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cell(small(), "random", 0).folder(Path("~/results")).is_relative_to(tmp_path / "results")


def test_reading_makes_no_folder(small, tmp_path):
    assert read_curve(Cell(small(), "random", 0), tmp_path / "none") is None
    assert not Path(tmp_path / "none").exists()


def test_curves_add_up():
    found = Curve((20, 30, 40), (10.0, 20.0, 60.0))
    assert (found.last, found.mean) == (60.0, 30.0)


def test_every_data_set_has_a_cell_of_its_own(small, tmp_path):
    folders = {
        Cell(small(dataset=name, optimizer=o), "saal", 0).folder(tmp_path) for name in CLASSES for o in ("adam", "sam")
    }
    assert len(folders) == 2 * len(CLASSES)
