"""Models that ask for values: samples that answer alike are scored together."""

from __future__ import annotations

import models
import pytest
import torch
from torch import nn
from torch.func import grad, vmap

import saal_fast
from saal_fast.engines.branches import QUESTIONS, Diverged, ask
from saal_fast.engines.layers import VmapReplacements

ENGINES = ("vmap", "ghost")


@pytest.mark.parametrize("fn", sorted(QUESTIONS, key=lambda fn: fn.__name__))
def test_without_vmap_a_value_is_itself(fn):
    x = torch.tensor(3)
    assert ask(fn, x) == fn(x)


def test_samples_that_agree_have_one_answer():
    with VmapReplacements():
        assert vmap(lambda x: torch.tensor(x.sum().item()))(torch.ones(4, 3)).tolist() == [3.0] * 4
        slopes = vmap(grad(lambda x: x.square().sum() if x.sum() > 0 else x.sum()))(torch.ones(4, 3))
    assert torch.equal(slopes, 2 * torch.ones(4, 3))


def test_samples_that_differ_diverge():
    x = torch.tensor([[1.0], [-1.0], [2.0]])
    with VmapReplacements(), pytest.raises(Diverged) as raised:
        vmap(lambda one: one if one.sum() > 0 else -one)(x)
    assert sorted(part.tolist() for part in raised.value.parts) == [[0, 2], [1]]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_sample_a_branch_of_its_own(engine):
    case = models.Case(models.Function(lambda self, x: self.head(x) * x.sum().item(), head=nn.Linear(5, 3)), None)
    pool = torch.randn(4, 5)
    labels = torch.tensor([0, 2, 1, 1])
    got, want = (saal_fast.score(case.model, pool, 0.3, labels=labels, engine=e) for e in (engine, "reference"))
    torch.testing.assert_close(got, want)


def test_nan_is_an_answer_too():
    model = models.Function(lambda self, x: self.head(x) if x.sum() > 0 else self.head(x * 2), head=nn.Linear(5, 3))
    pool = torch.randn(4, 5)
    pool[1:3] = torch.nan
    got, want = (saal_fast.score(model, pool, 0.3, engine=e, on_nonfinite="keep") for e in ("ghost", "reference"))
    torch.testing.assert_close(got, want, equal_nan=True)


def test_a_later_batch_on_another_branch_is_planned_anew():
    def forward(self, x):
        return self.head(self.one(x) if x[0, 0] > 0 else self.two(self.two(x)))

    torch.manual_seed(0)
    parts = {name: nn.Linear(30, 30) for name in ("one", "two")}
    model = models.Function(forward, **parts, head=nn.Linear(30, 3))
    pool = torch.randn(6, 30)
    pool[:, 0] = torch.tensor([1.0, 1, -1, -1, 1, -1])
    got, want = (saal_fast.score(model, pool, 0.3, engine=e, batch_size=2) for e in ("ghost", "reference"))
    torch.testing.assert_close(got, want)
