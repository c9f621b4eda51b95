from __future__ import annotations

from functools import partial
from importlib import import_module

import models
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import saal_fast
from saal_fast.engines import Problem
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.backends import Backends
from saal_fast.engines.layers.conv import Conv
from saal_fast.engines.layers.linear import Linear
from saal_fast.perturbation import L2, Adaptive
from saal_fast.pools import Batch
from saal_fast.scoring import nonfinite as finiteness
from saal_fast.scoring.nonfinite import FiniteCheck, NonFiniteError
from saal_fast.tasks import Classification

CPU = torch.device("cpu")


def batch(start, size=2):
    return Batch((), {}, size, start)


def test_answers_are_read_at_once_on_a_cpu():
    check = FiniteCheck(CPU)
    check.see(torch.tensor([True, True]), batch(0))
    with pytest.raises(NonFiniteError, match=r"NaN or inf for 1 of samples 2 to 3 of the pool: 3\. on_nonfinite"):
        check.see(torch.tensor([True, False]), batch(2))


def test_late_answers_are_read_when_the_next_batch_is_queued(monkeypatch):
    read = []

    def sent(t):
        number = len(read) + sum(1 for _ in check.sent)

        def arrived():
            read.append(number)
            return t

        return arrived

    monkeypatch.setattr(finiteness, "send_to_host", sent)
    check = FiniteCheck(CPU, late=True)
    for i in range(3):
        check.see(torch.tensor([True]), batch(i, 1))
        assert read == list(range(i))
    check.see(torch.tensor([False, False, True]), batch(3, 3))
    with pytest.raises(NonFiniteError, match=r"for 2 of samples 3 to 5 of the pool: 3, 4\."):
        check.finish()


def test_late_is_what_cuda_gets():
    assert FiniteCheck(torch.device("cuda")).late
    assert not FiniteCheck(CPU).late


def test_scoring_raises_for_the_last_batch_too(monkeypatch):
    monkeypatch.setattr(import_module("saal_fast.scoring.score"), "FiniteCheck", partial(FiniteCheck, late=True))
    model, pool = torch.nn.Linear(3, 2), torch.randn(5, 3)
    pool[4] = torch.nan
    with pytest.raises(NonFiniteError, match=r"for 1 of samples 4 to 4 of the pool: 4\."):
        saal_fast.score(model, pool, batch_size=2)
    pool[1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"samples 0 to 1 of the pool: 1\."):
        saal_fast.score(model, pool, batch_size=2)


class Asked(TorchDispatchMode):
    """Notes operations whose answer the host, or the size of a tensor, waits for."""

    WAITS = ("_local_scalar_dense", "nonzero", "equal", "unique", "masked_select", "is_nonzero", "bincount")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(func.name().startswith(f"aten::{name}") for name in self.WAITS):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", [L2(0.1), Adaptive(0.1)])
@pytest.mark.parametrize("name", ["mlp", "resnet", "vit", "convnext"])
def test_the_engine_never_asks_for_a_value(name, rule):
    fused = Backends(fused_layers=(Conv, Linear), fused_loss=True, flat=True)
    case = models.build(name, torch.float32)
    engine = Ghost(Problem.of(case.model.eval(), rule, Classification()), fused)
    whole = Batch((case.pool,), {}, len(case.pool), 0)
    with torch.no_grad(), Asked() as asked:
        engine(whole)
    assert asked.names == []


def test_what_it_would_notice():
    with Asked() as asked:
        assert bool(torch.ones(1) > 0)
    assert asked.names in (["aten::_local_scalar_dense"], ["aten::is_nonzero"])
