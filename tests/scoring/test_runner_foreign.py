"""Only what an engine itself cannot do becomes a fallback; what strikes from outside, or is the model's own, is raised."""

import ctypes
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import saal_fast
from saal_fast import score
from saal_fast._utils.logs import forget_warnings


@pytest.fixture(autouse=True)
def nothing_warned_yet():
    forget_warnings()


def mlp(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), *more)


class Calls:
    """A count that is no container of a module's: scoring would put that back after each pass."""

    number = 0


PACKAGE = Path(saal_fast.__file__).parent


class At(nn.Module):
    """Calls a function in the `n`-th forward pass from now on."""

    def __init__(self, n, call):
        super().__init__()
        object.__setattr__(self, "at", (n, call))
        object.__setattr__(self, "calls", Calls())

    def forward(self, x):
        self.calls.number += 1
        if self.calls.number == self.at[0]:
            self.at[1]()
        return x


class Each(nn.Module):
    """Calls a function in every forward pass."""

    def __init__(self, call):
        super().__init__()
        object.__setattr__(self, "call", call)

    def forward(self, x):
        self.call()
        return x


@pytest.fixture
def alarm():
    def ring(number, frame):
        raise TimeoutError("time is up")

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("engine", "rings"),
    [("auto", 5), *(pytest.param(e, 40, marks=pytest.mark.slow) for e in ("auto", "ghost", "vmap", "reference"))],
)
def test_an_alarm_at_any_moment_is_raised_as_it_came(engine, rings, alarm, caplog, monkeypatch):
    model, pool, lost = mlp(), torch.randn(4000, 4), []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)  # of finalizers and the collector's callbacks
    score(model, pool[:20], engine=engine)

    def on_and_on():
        end = time.monotonic() + 60
        while time.monotonic() < end and not lost:
            score(model, pool, engine=engine, batch_size=8)
        if lost:
            frames = traceback.extract_tb(lost.pop().exc_traceback)
            assert not any(PACKAGE in Path(frame.filename).parents for frame in frames)
            raise TimeoutError("time is up")

    rng = random.Random(0)
    for _ in range(rings):
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 0.02))
        with pytest.raises(TimeoutError, match="time is up"):
            on_and_on()
    assert not caplog.records


@pytest.mark.parametrize("engine", ["auto", "ghost", "vmap"])
def test_an_alarm_that_rings_at_the_same_place_again_and_again(engine, alarm, caplog):
    """Three times: as often as it would take to believe that the work itself fails there."""
    model, pool = mlp(At(5, lambda: None)), torch.randn(80, 4)
    rings = [0]

    def ring():
        if model[3].calls.number >= 5 and rings[0] < 3:
            rings[0] += 1
            signal.raise_signal(signal.SIGALRM)

    model.append(Each(ring))
    with pytest.raises(TimeoutError, match="time is up"):
        score(model, pool, engine=engine, batch_size=8, check=False)
    assert rings == [1]
    assert not caplog.records


class ThrownError(Exception):
    pass


@pytest.mark.parametrize("engine", ["auto", "ghost", "vmap"])
@pytest.mark.parametrize("n", [3, 5, 8])
def test_what_another_thread_throws_in_is_raised_as_it_came(engine, n, caplog):
    def throw():
        ident = ctypes.c_ulong(threading.get_ident())
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(ThrownError))

    with pytest.raises(ThrownError):
        score(mlp(At(n, throw)), torch.randn(80, 4), engine=engine, batch_size=8, check=False)
    assert not caplog.records


def test_a_fallback_while_an_alarm_is_set_that_does_not_ring(alarm):
    class ByPointer(nn.Module):
        def forward(self, x):
            return x * float(x.detach().data_ptr() != 0)

    signal.setitimer(signal.ITIMER_REAL, 100)
    assert score(mlp(ByPointer()), torch.randn(8, 4), details=True).engine == "reference"


class Dies(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        if i == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(4)


def test_a_dead_worker_is_raised_as_it_came(caplog):
    model = mlp(At(10**9, None))
    slow = At(4, lambda: time.sleep(1))  # the worker dies while the engine works
    for m in (model, mlp(slow)):
        with pytest.raises(RuntimeError, match=r"DataLoader worker .*(killed|exited unexpectedly)"):
            score(m, DataLoader(Dies(), batch_size=8, num_workers=1))
        assert all(module.training for module in m.modules())
    assert not caplog.records


class MyError(Exception):
    pass


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError, MyError, OSError])
@pytest.mark.parametrize("engine", ["auto", "ghost"])
def test_a_models_error_that_does_not_come_again_is_raised_as_it_came(error, engine, caplog):
    def fail():
        raise error("once")

    with pytest.raises(error, match="once"):
        score(mlp(At(6, fail)), torch.randn(80, 4), engine=engine, batch_size=8, check=False)
    assert not caplog.records


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError, MyError])
@pytest.mark.parametrize("engine", ["auto", "ghost", "vmap", "reference"])
def test_a_models_error_about_its_data_is_raised_as_it_came(error, engine, caplog):
    class Refuses(nn.Module):
        def forward(self, x):
            if (x[:, 0] > 100).any():
                raise error("too large")
            return x

    pool = torch.randn(20, 4)
    pool[13, 0] = 200
    model = nn.Sequential(Refuses(), mlp())
    with pytest.raises(error, match="too large"):
        score(model, pool, engine=engine, batch_size=8)
    assert not caplog.records


@pytest.mark.parametrize("error", [KeyError, TimeoutError, RuntimeError])
def test_a_pools_error_is_raised_as_it_came(error, caplog):
    class Fails(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            if i == 13:
                raise error("sample 13")
            return torch.ones(4)

    with pytest.raises(error, match="sample 13"):
        score(mlp(), Fails(), batch_size=4)
    assert not caplog.records


class Struck(nn.Module):
    """Keeps biases in eval mode; a pass or a copy, the one whose number is `at`, is struck."""

    def __init__(self, at, strike):
        super().__init__()
        self.body, self.bias, self.kept = mlp(), nn.Parameter(torch.randn(4)), {}
        self.visits = Visits(at, strike)

    def forward(self, x):
        self.visits.visit()
        if self.training:
            return self.body(x + self.bias * 2)
        if "bias" not in self.kept:
            self.kept["bias"] = self.bias * 2
        return self.body(x + self.kept["bias"])


class Visits:
    def __init__(self, at, strike):
        self.at, self.strike, self.number = at, strike, 0

    def visit(self):
        self.number += 1
        if self.number == self.at:
            self.strike()

    def __deepcopy__(self, memo):
        self.visit()
        return self


class LateError(RuntimeError):
    """Of a class that a model's own failures have as well."""


def struck(strike):
    """How many visits there are; at each, but in a call of its own, the strike must be raised as it came."""

    def model(at):
        torch.manual_seed(0)
        model = Struck(at, strike).eval()
        with torch.no_grad():
            model(torch.zeros(1, 4))  # the first visit
        return model

    pool = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    whole = model(0)
    score(whole, pool)
    for at in range(2, whole.visits.number + 1):
        one = model(at)
        with pytest.raises(LateError, match="too late"):
            score(one, pool)
    return whole.visits.number


@pytest.mark.parametrize("stays", [True, False])
def test_a_signal_at_any_pass_or_copy_is_raised_as_it_came(stays):
    def ring(number, frame):
        if not stays:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise LateError("too late")

    def strike():
        signal.signal(signal.SIGALRM, ring)
        signal.raise_signal(signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        assert struck(strike) > 15
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_another_thread_throws_into_the_self_check_is_raised_as_it_came():
    class ThrownError(Exception):
        pass

    def throw():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(ThrownError))
        for _ in range(1000):
            pass

    model = Struck(0, throw).eval()
    model.visits.at = 1  # a copy for the self-check comes first
    with pytest.raises(ThrownError):
        score(model, torch.randn(5, 4))
