"""Which implementation is chosen, and that the engine calls what was chosen. That it scores alike: `test_equality.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import models
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import saal_fast
from saal_fast.engines import Problem, ghost, routes
from saal_fast.engines.layers.linear import Linear
from saal_fast.engines.routes import GHOSTED, Routes, routes_for
from saal_fast.objectives import Classification
from saal_fast.perturbation import L2

PACKED = Routes(ghosts=(Linear,), loss=False, packed=True)
ALL = Routes(ghosts=GHOSTED, loss=True, packed=True)


def problem(device="cuda", task=None, model=None):
    """A problem of that device, which need not be there: nothing is moved."""
    model = model or nn.Linear(4, 3)
    return Problem(model, dict(model.named_parameters()), {}, L2(0.1), task or Classification(), torch.device(device))


class Doubled(Classification):
    def loss(self, output, label):
        return 2 * super().loss(output, label)


@pytest.mark.parametrize("triton", [True, False])
def test_the_choice(triton, monkeypatch):
    monkeypatch.setattr(routes.twins, "available", lambda: triton)
    assert routes_for(problem("cpu")) == PACKED
    assert routes_for(problem()) == (ALL if triton else PACKED)
    assert not routes_for(problem(task=Doubled())).loss
    of_two_types = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double())
    assert routes_for(problem(model=of_two_types)) == replace(ALL if triton else PACKED, packed=False)


class Calls(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.name()] += 1
        return func(*args, **(kwargs or {}))

    def ours(self):
        return {name.removeprefix("saal_fast::"): n for name, n in self.names.items() if name.startswith("saal_fast::")}


def calls_of(monkeypatch, model, pool, **options):
    models.factor_everything(monkeypatch)
    monkeypatch.setattr(ghost, "routes_for", lambda problem: ALL)
    with Calls() as calls:
        saal_fast.score(model, pool, engine="ghost", batch_size=len(pool), **options)
    return calls.ours()


def test_one_operation_each_for_loss_and_direct_parameters(monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3),
    )  # fmt: skip
    pool = torch.randn(5, 2, 8, 8)
    assert calls_of(monkeypatch, model, pool) == {
        "ghost_norm": 3,
        "ghost_apply": 3,
        "cross_entropy": 2,
        "flat_norm": 1,
        "flat_step": 1,
    }


def test_uses_of_a_linear_weight_are_joined(monkeypatch):
    """Three uses are nine pairs; end to end they are one use at three times the positions."""
    case = models.build("linear_used_twice")
    assert calls_of(monkeypatch, case.model, case.pool)["ghost_norm"] == len(
        [n for n, p in case.model.named_parameters() if p.ndim == 2]
    )


def test_what_the_operations_do_not_know_keeps_its_gram_matrices(monkeypatch):
    for name in ("conv3d_plain", "conv_at_two_sizes_and_strides"):
        case = models.build(name)
        with monkeypatch.context() as patch:
            called = calls_of(patch, case.model, case.pool)
        assert "conv_ghost_norm" not in called


def test_a_task_that_inherits_keeps_its_own_loss(monkeypatch):
    case = models.build("mlp")
    monkeypatch.setattr(routes.twins, "available", lambda: True)
    on_cuda = routes_for
    monkeypatch.setattr(ghost, "routes_for", lambda found: on_cuda(problem(task=found.task)))
    for task in (Doubled(), Classification()):
        want, got = (
            saal_fast.score(case.model, case.pool, 0.3, task=task, engine=e, details=True) for e in ("reference", "ghost")
        )
        torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(got.grad_norm, want.grad_norm, rtol=1e-9, atol=0)


def test_memory_a_sample_counts_no_gram_matrices_that_are_not_formed(monkeypatch):
    model, x = nn.Linear(3, 3, bias=False), torch.randn(1, 100, 3)
    models.factor_everything(monkeypatch)
    found = Problem.of(model, L2(0.1), Classification())
    batch = saal_fast.pools.Batch((x,), {}, 1, 0)
    assert ghost.Ghost(found).sample_bytes(batch) == 4 * 100**2 * 4
    monkeypatch.setattr(routes.twins, "available", lambda: True)
    assert ghost.Ghost(replace(found, device=torch.device("cuda"))).sample_bytes(batch) == 0
