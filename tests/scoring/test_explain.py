from __future__ import annotations

import math

import models
import pytest
import torch
from torch import nn

import saal_fast


def test_a_network_and_what_becomes_of_its_parameters():
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    model.train()
    found = saal_fast.explain(model, torch.randn(2, 3, 32, 32))
    assert all(m.training for m in model.modules())
    rows = {row.name: row for row in found.rows}
    assert list(rows) == [n for n, _ in model.named_parameters()]
    assert (rows["0.weight"].layer, rows["0.weight"].positions, rows["0.weight"].mode) == ("conv", 32 * 32, "materialized")
    assert (rows["5.weight"].positions, rows["5.weight"].mode, rows["5.bias"].mode) == (1, "ghost", "with_weight")
    assert (rows["1.weight"].mode, rows["1.weight"].flops, rows["1.weight"].kept) == ("autograd", None, 4 * 4 * 16)
    assert rows["0.weight"].kept == 4 * 16 * 27
    assert rows["5.weight"].kept == 4 * 2
    assert found.forward == 2 * (16 * 27 * 32 * 32 + 160)
    assert found.fallback is None
    lines = str(found).splitlines()
    assert lines[0].split()[:5] == ["parameter", "shape", "layer", "T", "mode"]
    assert lines[1].split()[:5] == ["0.weight", "16×3×3×3", "conv", "1024", "materialized"]
    assert lines[-1] == "engine: ghost"


@pytest.mark.parametrize("name", ["bert", "lstm", "vit", "linear_used_twice", "half_selected"])
@pytest.mark.parametrize("rule", [{}, {"adaptive": True}, {"norm": math.inf}])
def test_every_perturbed_parameter_has_its_row(name, rule):
    if name not in models.NAMES:
        pytest.skip(f"there is no model {name}")
    case = models.build(name)
    found = saal_fast.explain(case.model, case.pool, params=case.params, **rule)
    wanted = [n for n, p in case.model.named_parameters() if p.requires_grad and (case.params is None or case.params(n))]
    assert [row.name for row in found.rows] == wanted
    for row in found.rows:
        assert row.mode in ("ghost", "tiled", "materialized", "with_weight", "autograd")
        assert row.mode == "with_weight" or row.flops is None or row.flops == min(row.others.values(), default=row.flops)
    assert all(row.mode not in ("ghost", "with_weight") for row in found.rows) or not rule


class Branching(nn.Module):
    """Takes its branch by a number that `vmap` cannot read."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) * float(x.detach().abs().sum().tolist() > 0)


def test_why_a_model_falls_back(monkeypatch):
    found = saal_fast.explain(Branching(), torch.randn(1, 4))
    scored = saal_fast.score(Branching(), torch.randn(1, 4), details=True)
    assert found.fallback == scored.fallback
    assert ("reference" in str(found).splitlines()[-1]) == (found.fallback is not None)


def test_bad_arguments():
    for model, name in ((3, "int"), (torch.jit.trace(nn.Linear(4, 3), torch.randn(1, 4)), "TopLevelTracedModule")):
        with pytest.raises(TypeError, match=rf"expected model to be an eager torch\.nn\.Module, got {name}"):
            saal_fast.explain(model, torch.randn(1, 4))
    with pytest.raises(ValueError, match="precision to be one of None, 'bf16', 'fp16'; got 'fp32'"):
        saal_fast.explain(nn.Linear(4, 3), torch.randn(1, 4), precision="fp32")
    with pytest.raises(ValueError, match="expected an example of at least one sample, got none"):
        saal_fast.explain(nn.Linear(4, 3), torch.randn(0, 4))
    with pytest.raises(ValueError, match="rho"):
        saal_fast.explain(nn.Linear(4, 3), torch.randn(1, 4), rho=-1)


def test_gradient_hooks_are_told_and_do_not_run():
    model, ran = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), []
    assert saal_fast.explain(model, torch.randn(2, 4)).hooked == ()
    x = torch.randn(6, 4)
    before = {engine: saal_fast.score(model, x, engine=engine) for engine in ("ghost", "vmap", "reference")}
    model[0].weight.register_hook(lambda g: (ran.append("hook"), 2 * g)[1])
    model[2].bias.register_post_accumulate_grad_hook(lambda p: ran.append("accumulated"))
    found = saal_fast.explain(model, x)
    assert found.hooked == ("0.weight", "2.bias")
    assert str(found).splitlines()[-1] == "gradient hooks that don't run while scoring: those of 0.weight, 2.bias"
    for engine, scores in before.items():
        assert torch.equal(saal_fast.score(model, x, engine=engine), scores)
    assert not ran


def test_a_function_that_calls_it_may_be_compiled():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    x = torch.randn(2, 1, 5, 5)
    compiled = torch.compile(lambda x: saal_fast.explain(model, x).forward, backend="eager")
    assert compiled(x) == saal_fast.explain(model, x).forward
