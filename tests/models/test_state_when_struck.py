"""A model is put back whatever strikes: errors, interrupts, signals at any line."""

import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from models.traces import generators, leave_traces, leave_traces_and_fail, model_with_everything, portrait
from saal_fast.models.state import preserve_state


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, GeneratorExit])
def test_everything_comes_back(error):
    model = model_with_everything()
    before, random_before = portrait(model), generators()
    if error is None:
        with preserve_state(model):
            leave_traces(model)
    else:
        with pytest.raises(error):
            leave_traces_and_fail(model, error)
    assert portrait(model) == before
    assert generators() == random_before


class Injected(BaseException):
    """What a debugger, another thread or a signal handler may throw in at any line."""


def injecting(at, times):
    """A trace function that raises at the `at`-th line that state.py or rng.py runs from now on, and at further ones."""
    count = [0]

    def trace(frame, event, arg):
        if not frame.f_code.co_filename.endswith(("models/state.py", "_utils/rng.py", "models/turns.py")):
            return None
        if event == "line":
            count[0] += 1
            if at <= count[0] < at + times:
                raise Injected(f"line {frame.f_lineno} of {frame.f_code.co_filename}")
        return trace

    return trace, count


def leave_with_injection(model, at, times, error):
    """Leaves traces on another thread, as the main one leaves apart, and raises while the model is put back."""
    raised = []

    def work():
        trace, count = injecting(at, times)
        before = sys.gettrace()
        try:
            with preserve_state(model):
                leave_traces(model)
                sys.settrace(trace)
                if error is not None:
                    raise error
        except BaseException as caught:
            raised.append(caught)
        finally:
            sys.settrace(before)
        raised.append(count[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (None, 1),
        (ValueError, 3),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(None, 3), (ValueError, 1)]),
    ],
)
def test_an_exception_at_any_line_of_the_restore_leaves_nothing_behind(error, times, monkeypatch):
    monkeypatch.setattr("saal_fast._utils.rng.REST", 1e-3)
    torch.set_grad_enabled(True)
    lines = 0
    while True:
        model = model_with_everything()
        before, random_before = portrait(model), generators()
        *caught, count = leave_with_injection(model, lines + 1, times, error)
        assert portrait(model) == before, caught
        assert generators() == random_before, caught
        with preserve_state(model):  # and nobody has to wait for it
            pass
        if count <= lines:
            break
        (caught,) = caught
        assert isinstance(caught, Injected)
        assert error is None or isinstance(caught.__context__, error)
        lines += max(1, count // 12)  # some twelve of them; all are tried below
    assert lines > 12


@pytest.mark.slow
def test_an_exception_at_every_line_of_the_restore_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("saal_fast._utils.rng.REST", 1e-3)
    line, count = 0, 1
    while line < count:
        line += 1
        model = model_with_everything()
        before, random_before = portrait(model), generators()
        *caught, count = leave_with_injection(model, line, 1, None)
        assert portrait(model) == before, caught
        assert generators() == random_before, caught


def test_a_step_that_fails_by_itself_lets_the_others_pass():
    class Stuck(dict):
        def __setitem__(self, key, value):
            raise OSError("stuck")

    model = model_with_everything()
    model[0].stuck = Stuck(a=1)
    before = portrait(model)

    def work():
        with preserve_state(model):
            leave_traces(model)
            dict.clear(model[0].stuck)

    with pytest.raises(OSError, match="stuck"):
        work()
    after = portrait(model)
    assert {key for key in before if before[key] != after[key]} == {("0", "stuck")}


def test_no_module_is_ever_empty_while_it_is_put_back():
    model = model_with_everything()
    seen = []

    class Watching(dict):
        def __setitem__(self, key, value):
            seen.append(min(len(vars(m)) for m in model.modules()))
            super().__setitem__(key, value)

    model[0].by_name = Watching(a=1)
    least = min(len(vars(m)) for m in model.modules())
    with preserve_state(model):
        model[0].by_name["a"] = 2
        del model[0].history
    assert seen
    assert min(seen) >= least - 1


BURST = """
import os, signal, sys, threading, time, torch
from torch import nn
from saal_fast import score
from saal_fast.models import state

def stop(number, frame):
    while frame is not None:  # what strikes this script elsewhere is left alone
        if frame.f_code is attempt.__code__:
            raise RuntimeError(f"signal {number}")
        frame = frame.f_back

numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1]
for number in numbers:
    signal.signal(number, stop)

torch.manual_seed(0)
model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()) for _ in range(20)), nn.Linear(4, 3))
model(torch.randn(8, 4)).sum().backward()
x = torch.randn(16, 4)

def portrait():
    return (
        [(id(p), p.tolist(), id(p.grad), p.grad.tolist()) for p in model.parameters()],
        [(id(b), b.tolist()) for b in model.buffers()],
        [(m.training, list(vars(m))) for m in model.modules()],
    )

firing = threading.Event()

def fire():
    while True:
        firing.wait()
        for number in numbers:
            os.kill(os.getpid(), number)
        time.sleep(2e-4)

class Fires(nn.Module):
    def forward(self, x):
        firing.set()
        return x

def attempt(n):
    with state.preserve_state(model):
        if n % 2:
            score(model, x)
        firing.set()
        time.sleep(n * 1e-5)

model.append(Fires())
before = portrait()
threading.Thread(target=fire, daemon=True).start()
cut = 0
for n in range(int(sys.argv[1])):
    try:
        attempt(n)
    except RuntimeError:
        cut += 1
    firing.clear()
    assert portrait() == before, n
print("cut", cut)
"""


@pytest.mark.slow  # quickly, an exception at any line of the restore stands for it
@pytest.mark.parametrize("attempts", [4, 24])
def test_a_burst_of_signals_of_every_kind_leaves_nothing_behind(attempts):
    command = [sys.executable, "-c", BURST, str(attempts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > attempts // 4 - 1


@pytest.mark.parametrize("moment", range(8))
def test_an_interrupt_while_it_sets_up_leaves_nothing_behind(moment):
    class Interrupting(nn.Linear):
        armed = None

        def __setattr__(self, name, value):
            if name == "training" and type(self).armed is not None:
                if type(self).armed == 0:
                    type(self).armed = None
                    raise KeyboardInterrupt
                type(self).armed -= 1
            super().__setattr__(name, value)

    model = nn.Sequential(*(Interrupting(2, 2) for _ in range(8)))
    model(torch.randn(1, 2)).sum().backward()
    before = portrait(model)
    Interrupting.armed = moment
    with pytest.raises(KeyboardInterrupt), preserve_state(model):
        pytest.fail("the body must not run")
    assert portrait(model) == before
