"""The engines on a CUDA device, against the reference in fp64 on the CPU."""

from __future__ import annotations

import math

import models
import pytest
import torch

import saal_fast

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
RULES = {"L2": {"rho": 0.3}, "Linf": {"rho": 0.01, "norm": math.inf}, "L3": {"rho": 0.2, "norm": 3}}
RULES["adaptive"] = {"rho": 0.2, "adaptive": True}


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "name", ["mlp", "resnet", "vit", "bert", "lstm", "conv2d_stride", "conv1d_plain", "linear_used_twice"]
)
def test_ghost_on_cuda(name, rule, everything, monkeypatch):
    if everything:
        models.factor_everything(monkeypatch)
    exact, case = models.build(name, torch.float64), models.build(name, torch.float32)
    want = saal_fast.score(exact.model, exact.pool, engine="reference", details=True, **RULES[rule])
    got = saal_fast.score(case.model, case.pool, engine="ghost", device="cuda", details=True, **RULES[rule])
    assert torch.equal(got.label, want.label)
    for what in ("perturbed_loss", "loss", "grad_norm"):
        torch.testing.assert_close(getattr(got, what).double(), getattr(want, what), rtol=2e-3, atol=1e-5)
