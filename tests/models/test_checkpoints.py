"""Checkpointed functions run plainly where a model is scored, and only there."""

import threading

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils import checkpoint as torchs
from torch.utils.checkpoint import CheckpointFunction, checkpoint

import saal_fast
from saal_fast.models.checkpoints import without_checkpoints

KINDS = pytest.mark.parametrize("reentrant", [True, False])


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.runs = nn.Linear(3, 3), 0

    def forward(self, x):
        self.runs += 1
        return self.layer(x).tanh()


def runs(module, reentrant):
    """How often a forward and a backward pass through a checkpoint run the module."""
    module.runs = 0
    x = torch.randn(2, 3, requires_grad=True)
    checkpoint(module, x, use_reentrant=reentrant).sum().backward()
    assert x.grad is not None
    return module.runs


def state():
    names = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
    return [getattr(torchs, name, None) for name in names], dict(vars(CheckpointFunction)), dict(vars(save_on_cpu))


@KINDS
def test_a_checkpointed_function_runs_once_within(reentrant):
    module = Counting()
    assert runs(module, reentrant) == 2
    with without_checkpoints():
        assert runs(module, reentrant) == 1
        with without_checkpoints():
            assert runs(module, reentrant) == 1
        assert runs(module, reentrant) == 1
    assert runs(module, reentrant) == 2


@KINDS
def test_other_threads_keep_their_checkpoints(reentrant):
    found = []
    with without_checkpoints():
        thread = threading.Thread(target=lambda: found.append(runs(Counting(), reentrant)))
        thread.start()
        thread.join()
    assert found == [2]


def test_torch_is_left_as_it_was_also_after_an_error():
    before = state()
    found = []

    def fails():
        with without_checkpoints():
            found.append(state())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert found != [before]
    assert state() == before


def test_an_error_of_the_function_comes_as_it_is():
    def fails(x):
        raise ZeroDivisionError("the function's own")

    for reentrant in (True, False):
        with without_checkpoints(), pytest.raises(ZeroDivisionError, match="the function's own"):
            checkpoint(fails, torch.ones(1, requires_grad=True), use_reentrant=reentrant)


def test_the_context_of_the_forward_pass_is_entered():
    def contexts():
        return torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", torch.bfloat16)

    with without_checkpoints():
        out = checkpoint(nn.Linear(3, 3), torch.randn(2, 3), use_reentrant=False, context_fn=contexts)
    assert out.dtype == torch.bfloat16


def test_nothing_is_saved_elsewhere_within():
    x = torch.randn(3, requires_grad=True)
    with without_checkpoints(), save_on_cpu():
        inside = x.square()
    with save_on_cpu():
        outside = x.square()
    assert inside.grad_fn._saved_self is x
    assert outside.grad_fn._saved_self is not x
    assert torch.equal(*(torch.autograd.grad(y.sum(), x)[0] for y in (inside, outside)))


@KINDS
def test_a_model_is_as_it_was_and_still_checkpointed(reentrant):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Counting(), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=reentrant))

    model = Model()
    want = {name: p.clone() for name, p in model.state_dict().items()}
    for engine in ("ghost", "vmap", "reference"):
        saal_fast.score(model, torch.randn(4, 3), engine=engine)
    assert all(torch.equal(p, want[name]) for name, p in model.state_dict().items())
    assert runs(model.body, reentrant) == 2
