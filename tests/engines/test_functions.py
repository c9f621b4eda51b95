"""Functions with a backward pass of their own: each engine gives what that pass gives, held to plain autograd."""

import functools
import threading

import pytest
import torch
import torch.nn.functional as F
from own_functions import NAMES, Net, make, pool
from own_functions.contexts import Everything
from own_functions.slopes import Clamped, Reverse, Round, kept_apply
from scored import scored
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionMeta
from truth import assert_true, truth_of

import saal_fast
from saal_fast.engines.capture.captured_engine import CapturedEngine
from saal_fast.engines.capture.cpu_trace import cpu_trace
from saal_fast.tasks import Classification

ENGINES = ("auto", "ghost", "vmap", "reference")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_a_function_gives_what_its_own_backward_pass_gives(name, engine):
    truth = truth_of(functools.partial(make, name), pool(), differences=False)
    scores = saal_fast.score(make(name), pool(), details=True, engine=engine)
    assert scores.engine == ("ghost" if engine == "auto" else engine), scores.fallback
    assert_true(scores, truth, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["straight_through", "context_of_every_kind", "weight_as_an_argument", "by_value", "by_numpy"]
)
def test_captured_batches_are_the_same(name):
    engines = []

    def capture(engine, device):
        engines.append(CapturedEngine(engine, cpu_trace, 2))
        return engines[-1]

    want = saal_fast.score(make(name), pool(20), details=True, engine="reference")
    got = scored(make(name), pool(20), batch_size=4, engine="ghost", capture=capture, check=False)
    assert_true(got, want, rtol=1e-9)
    (engine,) = engines
    assert bool(engine.replays) == (name not in ("by_value", "by_numpy")), engine.refused  # values have no place in a trace


def test_a_function_that_diverges_does_not_split_the_batch(monkeypatch):
    sizes = []
    real = saal_fast.engines.vmap.vmap
    monkeypatch.setattr(saal_fast.engines.vmap, "vmap", lambda *a, **k: sizes.append(1) or real(*a, **k))
    saal_fast.score(make("by_value"), pool(6), engine="vmap", check=False)
    assert len(sizes) <= 2  # the second time after the first has met it


@pytest.mark.parametrize("engine", ENGINES)
def test_the_functions_own_error_is_raised(engine):
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            raise ZeroDivisionError("of the function's own")

        @staticmethod
        def backward(ctx, grad):
            return grad

    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError, match="of the function's own"):
        saal_fast.score(Net(lambda h, weight: Fails.apply(h)).double(), pool(), engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_in_the_loss_of_a_task(engine):
    class Clamping(Classification):
        def loss(self, output, label):
            return super().loss(Clamped.apply(output), label)

    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    model = net()
    output = model(pool())
    label = output.argmax(1)
    norms = []
    for i in range(len(label)):
        model.zero_grad()
        F.cross_entropy(Clamped.apply(model(pool()[i : i + 1])), label[i : i + 1]).backward()
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    scores = saal_fast.score(net(), pool(), details=True, engine=engine, task=Clamping())
    torch.testing.assert_close(scores.grad_norm, torch.stack(norms), rtol=1e-9, atol=0)


def test_torch_is_left_as_it_was():
    before = dict(vars(FunctionMeta)), torch.autograd.function.custom_function_call, dict(vars(Round))
    saal_fast.score(make("straight_through"), pool())
    assert (dict(vars(FunctionMeta)), torch.autograd.function.custom_function_call, dict(vars(Round))) == before


def test_other_threads_train_meanwhile_as_ever():
    """Another thread's forward and backward passes through the same classes, while one scores."""
    done, wrong = threading.Event(), []

    def train():
        x = torch.randn(4, 4, dtype=torch.float64)
        while not done.is_set():
            leaf = x.clone().requires_grad_()
            out, _, _ = Everything.apply(leaf, 2, "a name")
            kept_apply(out).sum().backward()
            want = -2.0 * 1.5 * 2 * leaf.detach().exp() ** 2 * torch.where(leaf > 0, 1.0, 0.3)
            if not torch.allclose(leaf.grad, want):
                wrong.append(leaf.grad)
            Round.note = "set meanwhile"

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for name in ("context_of_every_kind", "kept_bound_method_with_a_default"):
            saal_fast.score(make(name), pool())
    finally:
        done.set()
        thread.join()
    assert not wrong


def test_a_class_may_be_changed_meanwhile():
    def used(h, weight):
        Round.backward = staticmethod(lambda ctx, grad: grad)
        Reverse.forward = Reverse.forward
        return Round.apply(h)

    torch.manual_seed(0)
    saal_fast.score(Net(used).double(), pool(2))
    assert Round.apply(torch.tensor(1.2)) == 1
