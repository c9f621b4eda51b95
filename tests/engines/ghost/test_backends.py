"""Which implementation is chosen, and that the engine calls what was chosen. That it scores alike: `test_equality.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import models
import torch
from scored import scored
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import saal_fast
from saal_fast.engines import Problem
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.backends import Backends, backends_for
from saal_fast.engines.layers.conv import Conv
from saal_fast.engines.layers.rows import Rows
from saal_fast.ops.common import triton
from saal_fast.perturbation import L2
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

FLAT = Backends(fused_layers=(Rows,), fused_loss=False, flat=True)
ALL = Backends(fused_layers=(Conv, Rows), fused_loss=True, flat=True)


def problem(device="cuda", task=None, model=None):
    """A problem of that device, which need not be there: nothing is moved."""
    model = model or nn.Linear(4, 3)
    return Problem(model, dict(model.named_parameters()), {}, L2(0.1), task or Classification(), torch.device(device))


class Doubled(Classification):
    def loss(self, output, label):
        return 2 * super().loss(output, label)


def test_the_choice():
    assert backends_for(problem("cpu")) == FLAT
    assert backends_for(problem()) == (ALL if triton.available() else FLAT)
    assert backends_for(problem(), fused=True) == ALL
    assert backends_for(problem(), fused=False) == FLAT
    assert not backends_for(problem(task=Doubled()), fused=True).fused_loss
    of_two_types = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double())
    assert backends_for(problem(model=of_two_types), fused=True) == replace(ALL, flat=False)


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
    with Calls() as calls:
        scored(model, pool, engine="ghost", batch_size=len(pool), backends=ALL, **options)
    return calls.ours()


def test_one_operation_each_for_loss_and_autograd_parameters(monkeypatch):
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
    called = calls_of(monkeypatch, case.model, case.pool)
    linear = [n for n, p in case.model.named_parameters() if p.ndim == 2]
    assert called["gram_norm"] + called.get("ghost_norm", 0) == len(linear)


def test_what_the_operations_do_not_know_keeps_its_gram_matrices(monkeypatch):
    for name in ("conv3d_plain", "conv_at_two_sizes_and_strides"):
        case = models.build(name)
        with monkeypatch.context() as patch:
            called = calls_of(patch, case.model, case.pool)
        convolutions = [n for n, p in case.model.named_parameters() if p.ndim > 2]
        linear = [n for n, p in case.model.named_parameters() if p.ndim == 2]
        assert convolutions
        assert called.get("gram_norm", 0) + called.get("ghost_norm", 0) == len(linear)


def test_a_task_that_inherits_keeps_its_own_loss():
    case = models.build("mlp")
    for task in (Doubled(), Classification()):
        backends = backends_for(problem(task=task), fused=True)
        want = saal_fast.score(case.model, case.pool, 0.3, task=task, engine="reference", details=True)
        got = scored(case.model, case.pool, 0.3, task=task, engine="ghost", backends=backends)
        torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(got.grad_norm, want.grad_norm, rtol=1e-9, atol=0)


def test_memory_a_sample_counts_no_gram_matrices_that_are_not_formed(monkeypatch):
    model, x = nn.Linear(3, 3, bias=False), torch.randn(1, 100, 3)
    models.factor_everything(monkeypatch)
    found = Problem.of(model, L2(0.1), Classification())
    batch = Batch((x,), {}, 1, 0)
    assert Ghost(found).sample_bytes(batch) == 4 * 100**2 * 4
    on_cuda = replace(found, device=torch.device("cuda"))
    assert Ghost(on_cuda, backends_for(on_cuda, fused=True)).sample_bytes(batch) == 0
