import builtins
import importlib.util
import io
import sys
from types import SimpleNamespace

import pytest

from saal_fast._utils import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_a_terminal(monkeypatch):
    # not a fixture: pytest sets sys.stderr anew between the fixtures and the test
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.fixture
def no_tqdm(monkeypatch):
    real_import, real_find = builtins.__import__, importlib.util.find_spec

    def refuse(name, *args, **kwargs):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tqdm" else real_find(name, *a))


def run(show, total=10):
    with progress.bar(total, show) as shown:
        for _ in range(5):
            shown.update(2)


def test_true_shows_samples_even_off_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(True)
    assert "10/10" in sys.stderr.getvalue()


def test_true_with_unknown_total(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(True, total=None)
    assert "10 samples" in sys.stderr.getvalue()


def test_none_shows_long_work_on_a_terminal(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 1e-9)
    run(None)
    assert "10/10" in terminal.getvalue()


def test_none_hides_short_work_on_a_terminal(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    run(None)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_none_is_silent_off_a_terminal(monkeypatch, stream):
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 1e-9)
    monkeypatch.setattr(sys, "stderr", stream)
    run(None)
    assert stream is None or stream.getvalue() == ""


@pytest.mark.parametrize(("shell", "shown"), [(SimpleNamespace(kernel=1), True), (SimpleNamespace(), False)])
def test_a_notebook_is_watched_and_a_script_run_by_ipython_is_not(monkeypatch, shell, shown):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress._watched() is shown


def test_false_is_silent(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 1e-9)
    run(False)
    assert terminal.getvalue() == ""


@pytest.mark.usefixtures("no_tqdm")
def test_without_tqdm_true_says_how_to_get_it():
    with pytest.raises(ImportError, match="pip install tqdm"):
        run(True)


@pytest.mark.usefixtures("no_tqdm")
@pytest.mark.parametrize("show", [None, False])
def test_without_tqdm_nothing_is_shown(monkeypatch, show):
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", 1e-9)
    run(show)
    assert terminal.getvalue() == ""


def test_an_error_inside_passes_through(monkeypatch):
    terminal = at_a_terminal(monkeypatch)

    def fail():
        with progress.bar(3, True) as shown:
            shown.update(1)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "1/3" in terminal.getvalue()


def test_other_things_than_samples_are_counted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.bar(3, True, "rounds", " rounds") as shown:
        shown.update(3)
    assert "rounds: 100%" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()
    assert "rounds/s" in sys.stderr.getvalue()
