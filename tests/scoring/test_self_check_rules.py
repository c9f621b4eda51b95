"""The self-check of a perturbation rule that `second_way` does not write out."""

from dataclasses import dataclass

import pytest
import torch
from alarms import by, inputs, mlp

from saal_fast import SelfCheckError
from saal_fast.engines import ENGINES
from saal_fast.scoring import ScoreOptions

RHO, ETA = 0.2, 0.1


@dataclass(frozen=True)
class Asam:
    """`ε = ρ t² ⊙ g / ‖t ⊙ g‖`, t = |w| + η (arXiv:2102.11600)."""

    rho: float
    linear = False
    code = None

    def unit(self, grads):
        return 1.0

    def contribution(self, g, w):
        return ((w.abs() + ETA) * g).square().sum()

    def direction(self, g, w):
        return (w.abs() + ETA).square() * g

    def scale(self, total):
        return torch.where(total > 0, self.rho / total.sqrt(), 0.0)

    def dual_norm(self, total):
        return total.sqrt()


class FusedAsL2(Asam):
    linear = True
    code = ("l2", 2.0)


class WrongInFloat32(Asam):
    def direction(self, g, w):
        return super().direction(g, w) * (1 if g.dtype == torch.float64 else 3)


def score_by(rule, engine, monkeypatch, **options):
    monkeypatch.setattr(ScoreOptions, "rule", property(lambda options: rule))
    return by(ENGINES[engine], **options)


def numbers_of_first():
    """Gradient norm and perturbed loss of sample 0, in float64."""
    model, x = mlp().double(), inputs()[:1].double()
    label = model(x).argmax(1)
    grads = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), label), list(model.parameters()))
    sizes = [p.detach().abs() + ETA for p in model.parameters()]
    norm = sum((t * g).square().sum() for t, g in zip(sizes, grads, strict=True)).sqrt()
    with torch.no_grad():
        for p, t, g in zip(model.parameters(), sizes, grads, strict=True):
            p.add_(RHO * t.square() * g / norm)
        return float(norm), float(torch.nn.functional.cross_entropy(model(x), label))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_new_rule_is_checked(engine, monkeypatch):
    found = score_by(Asam(RHO), engine, monkeypatch)
    assert found.checked.startswith("agreed on samples 0, ")
    assert [found.grad_norm[0].item(), found.perturbed_loss[0].item()] == pytest.approx(numbers_of_first(), rel=1e-5)


@pytest.mark.parametrize("rule", [FusedAsL2(RHO), WrongInFloat32(RHO)], ids=lambda rule: type(rule).__name__)
def test_a_new_rule_that_an_engine_gets_wrong(rule, monkeypatch):
    with pytest.raises(SelfCheckError, match=r"expected sample 0 of the pool .*perturbed_loss"):
        score_by(rule, "ghost", monkeypatch)
