"""Models that write over outputs only under grad are planned once a shape; the plan then assumes such writes."""

import pytest
import torch
from torch import nn

from saal_fast.engines import Problem
from saal_fast.engines.ghost import Ghost, engine
from saal_fast.engines.reference import Reference
from saal_fast.perturbation import L2
from saal_fast.pools import Batch
from saal_fast.tasks import Classification


class WritesUnderGrad(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()

    def forward(self, x):
        z = self.first(x)
        z = z.tanh_() if torch.is_grad_enabled() else z.tanh()
        return self.second(z)


class Alternates(WritesUnderGrad):
    """Takes another branch for every other batch."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else self.second(self.first(self.first(x)[:, :4]).tanh())


@pytest.fixture
def plans(monkeypatch):
    made = []

    def plan_for(*args):
        made.append(plan := original(*args))
        return plan

    original = engine.plan_for
    monkeypatch.setattr(engine, "plan_for", plan_for)
    return made


@pytest.mark.parametrize(("model", "sign", "most"), [(WritesUnderGrad, 1, 2), (Alternates, -1, 21)])
def test_plans(model, sign, most, plans):
    problem = Problem.of(model().eval(), L2(0.1), Classification())
    ghost, reference = Ghost(problem), Reference(problem)
    for i in range(20):
        x = sign**i * torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        batch = Batch((x,), {}, 5)
        with torch.no_grad():
            torch.testing.assert_close(ghost(batch), reference(batch), rtol=1e-9, atol=1e-12)
    assert len(plans) <= most
