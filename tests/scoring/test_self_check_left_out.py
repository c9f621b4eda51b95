"""What the self-check can't decide, and when it looks."""

import gc
import random
import re
import signal
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from alarms import Wrong, by, checked, inputs, mlp
from torch import nn

import saal_fast
from saal_fast import SelfCheckError, score
from saal_fast.engines import ENGINES
from saal_fast.engines.habits import NO_HABITS
from saal_fast.models import memory
from saal_fast.scoring.known import _models

pytestmark = pytest.mark.usefixtures("each_warning_anew")


class OwnCopy(nn.Linear):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("make", [lambda: OwnCopy(5, 4), lambda: mlp(OwnCopy(6, 6))], ids=["whole", "part"])
def test_a_copy_that_shares_the_models_weights_is_not_moved(make):
    model = make()
    before = [p.detach().clone() for p in model.parameters()]
    assert re.match("left out: SharedError: a copy of .* shares .*weight with it", checked(model))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_models_that_draw_are_left_out(caplog):
    model = mlp(Noisy())
    scores = score(model, inputs(), details=True)
    assert scores.checked.startswith("left out: two passes of it differ (it draws random numbers")
    assert "the self-check of Sequential was left out" in caplog.text


def test_draws_are_those_without_a_check():
    class Draws(nn.Module):
        def forward(self, x):
            self.drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
            return x

    def drawn(**options):
        layer = Draws()
        object.__setattr__(layer, "drawn", kept)
        kept.clear()
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        score(mlp(layer), inputs(), batch_size=2, engine="reference", **options)
        return list(kept)

    kept = Uncopied()
    without, with_check = drawn(check=False), drawn()
    assert set(without) <= set(with_check)
    assert [x for x in with_check if x in set(without)][-4:] == without[-4:]


class Uncopied(list):
    """A list that its copies share."""

    def __deepcopy__(self, memo):
        return self


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, x):
        return x


class Unique(Locked):
    def __deepcopy__(self, memo):
        raise TypeError("there is but one")


def test_models_that_cannot_be_copied_are_left_out(caplog):
    assert checked(mlp(Unique())) == "left out: TypeError: there is but one"
    assert "the self-check of Sequential was left out: TypeError: there is but one" in caplog.text


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_attributes_that_cannot_be_copied_are_shared(caplog):
    model = mlp(Locked())
    model[2].traced = torch.jit.trace(lambda x: 2 * x, torch.randn(2, 6))
    assert checked(model).startswith("agreed")
    assert not caplog.records


class Twice(nn.Module):
    """Uses a weight by its name, and once more by a list."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.head = nn.Linear(5, 6), nn.Linear(6, 4)
        self.tied = [self.encode.weight]

    def forward(self, x):
        return self.head((x @ self.tied[0].T).tanh() * self.encode(x).sigmoid())


def test_numbers_of_a_tied_weight_are_those_of_both_uses():
    """What an engine that takes the second use for a constant finds is refused."""

    def once(problem):
        return ENGINES["reference"](replace(problem, habits=NO_HABITS))

    with pytest.raises(SelfCheckError, match="weights reached past the module's attributes"):
        by(once, Twice())


def test_two_samples_are_checked_where_there_are_two(looks):
    for n in (1, 2, 5):
        looks.clear()
        checked(mlp(), inputs(n))
        assert len(looks) == min(n, 2)


def test_a_model_that_writes_to_its_parameters_is_told_as_such():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8, max_norm=1.0), nn.Flatten(), nn.Linear(24, 4))
    with pytest.raises(RuntimeError, match=r"0\.weight") as error:
        score(model, torch.arange(12).reshape(4, 3))
    assert not isinstance(error.value, SelfCheckError)


def test_copies_that_memory_does_not_hold_are_left_out(monkeypatch, caplog):
    monkeypatch.setattr(memory, "free", lambda device: 100)
    assert checked(mlp()).startswith("left out: copies of the model and their gradients take 2,048 bytes, of which 100 are")
    assert "was left out" in caplog.text


def test_a_model_that_fails_on_the_second_way_is_left_out():
    class Counting(nn.Module):
        def forward(self, x):
            if (
                torch.is_grad_enabled()
                and not self.training
                and len(x) == 2
                and not torch._C._functorch.maybe_current_level()
            ):
                raise RuntimeError("mine")
            return x

    assert checked(mlp(Counting())).startswith("agreed")  # by batches of one

    class Never(nn.Module):
        def __deepcopy__(self, memo):
            return Failing()

        def forward(self, x):
            return x

    class Failing(nn.Module):
        def forward(self, x):
            raise KeyError("gone")

    assert checked(mlp(Never())).startswith("left out: KeyError: 'gone'")


def test_an_alarm_by_a_signal_is_raised_as_it_came():
    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    class Rings(nn.Module):
        def __deepcopy__(self, memo):
            signal.raise_signal(signal.SIGUSR1)
            return self

        def forward(self, x):
            return x

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(StopError):
            score(mlp(Rings()), inputs())
    finally:
        signal.signal(signal.SIGUSR1, before)


class Fixed(nn.Module):
    """Runs in float32 alone, where it rounds so much that numbers differ."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("float32 only")
        return x


def test_a_model_that_does_not_run_in_float64():
    assert checked(mlp(Fixed())).startswith("agreed")
    with pytest.raises(SelfCheckError, match=r"\(in torch.float32; the model does not run in float64\)"):
        by(Wrong, mlp(Fixed()))


def test_a_loop_pays_once(looks):
    model = mlp()
    first = checked(model)
    paid = len(looks)
    assert 1 <= paid <= 2
    for _ in range(3):
        with torch.no_grad():
            model[0].weight += 0.1  # a round of training
        assert checked(model, inputs(seed=3)) == first
        saal_fast.select(model, inputs(), 2)
    assert len(looks) == paid


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {"norm": 3},
        lambda m: {"adaptive": True},
        lambda m: {"engine": "vmap"},
        lambda m: {"labels": [0] * 8},
        lambda m: {"params": "0.weight".__eq__},
        lambda m: {"embeddings": True},
        lambda m: m[0].bias.requires_grad_(False) is None or {},
        lambda m: m.insert(1, nn.ReLU()) is None or {},
        lambda m: m[0].register_forward_hook(lambda *_: None) is None or {},
    ],
)
def test_other_options_or_another_structure_are_checked_anew(looks, change):
    model = mlp()
    checked(model)
    paid = len(looks)
    options = change(model)
    options = options if isinstance(options, dict) else {}
    assert checked(model, **options).startswith("agreed")
    assert len(looks) > paid


def test_verdicts_go_with_their_model():
    model = mlp()
    checked(model)
    assert _models.get(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_an_alarm_is_raised_each_time():
    model = mlp()
    for _ in range(2):
        with pytest.raises(SelfCheckError):
            by(Wrong, model)
