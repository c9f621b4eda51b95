"""The ghost engine with Triton's kernels under it: the shapes and strides that it hands to them under `vmap`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import saal_fast
from saal_fast.engines.ghost import engine as ghost
from saal_fast.engines.ghost import plan
from saal_fast.engines.ghost.backends import GHOSTED, Routes
from saal_fast.ops import cross_entropy, direct, ghost_l2
from saal_fast.ops.elementwise import native_map
from saal_fast.ops.triton import cross_entropy as triton_cross_entropy
from saal_fast.ops.triton import direct as triton_direct
from saal_fast.ops.triton import ghost as triton_ghost
from saal_fast.ops.triton.launch import window


def conv_norm(a, g, kernel, stride, padding, dilation, groups, bias):
    return triton_ghost.norm(a, g, bias, window(kernel, stride, padding, dilation, groups))


def conv_apply(a, g, x, scales, base, kernel, stride, padding, dilation, groups, bias):
    out = torch.empty_like(base, memory_format=torch.contiguous_format)
    return triton_ghost.apply(a, g, x, scales, base, out, bias, window(kernel, stride, padding, dilation, groups))


def loss(logits, label=None, gain=None, over_loss=False):
    return triton_cross_entropy.cross_entropy(logits, label, gain, over_loss, cross_entropy.FLOOR)


TWINS = {
    ghost_l2: {
        "cpu_norm": triton_ghost.norm,
        "cpu_apply": lambda a, g, x, s, base, bias: triton_ghost.apply(
            a, g, x, s, base, torch.empty_like(base, memory_format=torch.contiguous_format), bias
        ),
        "reference_conv_norm": conv_norm,
        "reference_conv_apply": conv_apply,
    },
    cross_entropy: {"reference": loss},
    direct: {
        "reference_norm": lambda g, w, rule, q: triton_direct.norm(g, w, native_map(rule, q), q),
        "reference_move": lambda g, w, s, rule, q: triton_direct.move(g, w, s, native_map(rule, q), q),
    },
}


class Network(nn.Module):
    """A convolution with a stride, one in groups, batch norm, and a linear layer over positions and one over none."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(2, 6, 3, stride=2, padding=1),
            nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False),
        )
        self.norm, self.mix, self.head = nn.BatchNorm2d(6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.norm(self.second(self.first(x).relu())).relu()
        return self.head(self.mix(h.flatten(2).mT).relu().mean(1))


@pytest.mark.parametrize("rule", [{}, {"adaptive": True}, {"norm": 3}])
def test_ghost_engine(rule, monkeypatch):
    ran = set()

    def noted(name, twin):
        def run(*args):
            ran.add(name)
            return twin(*args)

        return run

    torch.manual_seed(0)
    model, pool = Network(), torch.randn(3, 2, 7, 7)
    want = saal_fast.score(model.double(), pool.double(), 0.3, engine="reference", details=True, **rule)
    for module, twins in TWINS.items():
        for name, twin in twins.items():
            monkeypatch.setattr(module, name, noted(f"{module.__name__}.{name}", twin))
    monkeypatch.setattr(ghost, "routes_for", lambda problem: Routes(ghosts=GHOSTED, loss=True, packed=True))
    monkeypatch.setattr(plan, "best_way", lambda calls, linear: "grams" if linear else "direct")
    got = saal_fast.score(model.float(), pool, 0.3, engine="ghost", details=True, **rule)
    assert len(ran) == (7 if not rule else 3)
    assert torch.equal(got.label, want.label)
    for what in ("perturbed_loss", "loss", "grad_norm"):
        torch.testing.assert_close(getattr(got, what).double(), getattr(want, what), rtol=1e-4, atol=1e-6)
