import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from saal_fast.experiments.cells import Cell, Curve, curve, run, run_all
from saal_fast.experiments.data import CLASSES
from saal_fast.learning import LockedError, store


def kept(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".json", ".pt")}


def test_a_cell_is_run_to_its_curve(digits, small, tmp_path):
    cell = Cell(small(), "entropy", 1)
    assert curve(cell, tmp_path) is None
    found = run(cell, digits, tmp_path)
    assert found.labelled == (20, 25, 30)
    assert len(found.accuracy) == 3
    assert all(0 <= a <= 100 for a in found.accuracy)
    assert curve(cell, tmp_path) == found
    assert (tmp_path / "digits" / "adam-cpu" / "entropy" / "seed-1" / "0003-fit.json").is_file()
    assert not list(tmp_path.rglob("*.part"))


def test_the_first_labels_are_the_same_for_all_strategies(digits, small, tmp_path):
    first = {run(Cell(small(), name, 0), digits, tmp_path).accuracy[0] for name in ("random", "margin", "saal-kmeans++")}
    assert len(first) == 1


def test_a_cell_cut_off_is_resumed_and_is_no_curve_before(digits, small, tmp_path, monkeypatch):
    cell = Cell(small(), "saal", 0)
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
    assert curve(cell, tmp_path / "cut") is None
    assert run(cell, digits, tmp_path / "cut") == whole
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def test_any_order_gives_the_same(digits, small, tmp_path):
    cells = [Cell(small(), name, seed) for name in ("random", "least-confidence") for seed in (0, 1)]
    told = []
    for name, order in (("forth", cells), ("back", cells[::-1])):
        assert run_all(order, digits, tmp_path / name, told=told.append) == []
    assert kept(tmp_path / "forth") == kept(tmp_path / "back")
    assert len(told) == 8
    assert told[0].startswith("digits, adam, cpu: random, seed 0: ")
    assert "% after 30 labels" in told[0]
    assert run_all(cells, digits, tmp_path / "forth", told=told.append) == []
    assert len(told) == 8  # nothing was left to do


def test_a_cell_that_another_process_is_at_is_left_to_it(digits, small, tmp_path):
    cells = [Cell(small(), "random", seed) for seed in (0, 1)]
    lock = cells[0].folder(tmp_path).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError):
            run(cells[0], digits, tmp_path)
        told = []
        assert run_all(cells, digits, tmp_path, told=told.append) == [cells[0]]
        assert told[0].endswith("another process is at it")
        assert curve(cells[1], tmp_path) is not None
        other.kill()
    assert run_all(cells, digits, tmp_path, told=told.append) == []  # the lock went with the process


PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import small
from saal_fast.experiments.cells import Cell, run_all
from saal_fast.experiments.data import dataset
cells = [Cell(small(), name, seed) for name in ("random", "saal") for seed in (0, 1)]
run_all(cells, dataset("digits"), Path(sys.argv[2]), told=print)
"""


def test_two_processes_share_the_cells(digits, small, tmp_path):
    command = [sys.executable, "-c", PROCESS, str(Path(__file__).parent), str(tmp_path / "shared")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    cells = [Cell(small(), name, seed) for name in ("random", "saal") for seed in (0, 1)]
    run_all(cells, digits, tmp_path / "alone", told=lambda _: None)
    assert kept(tmp_path / "shared") == kept(tmp_path / "alone")
    assert all(f"{cell}: " in said for cell in cells)


def test_another_protocols_cells_are_not_mixed_in(digits, small, tmp_path):
    run(Cell(small(), "random", 0), digits, tmp_path)
    other = Cell(replace(small(), epochs=2), "random", 0)
    with pytest.raises(ValueError, match="holds a run of another protocol than"):
        curve(other, tmp_path)
    with pytest.raises(ValueError, match="holds another run: more was"):
        run(other, digits, tmp_path)


def test_reading_makes_no_folder(small, tmp_path):
    assert curve(Cell(small(), "random", 0), tmp_path / "none") is None
    assert not Path(tmp_path / "none").exists()


def test_curves_add_up():
    found = Curve((20, 30, 40), (10.0, 20.0, 60.0))
    assert (found.last, found.mean) == (60.0, 30.0)


def test_every_data_set_has_a_cell_of_its_own(small, tmp_path):
    folders = {
        Cell(small(dataset=name, optimizer=o), "saal", 0).folder(tmp_path) for name in CLASSES for o in ("adam", "sam")
    }
    assert len(folders) == 2 * len(CLASSES)
