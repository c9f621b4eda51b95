"""The ghost engine with Triton's kernels under it: the shapes and strides that it hands to them under `vmap`."""

from __future__ import annotations

import pytest
import torch
from scored import scored
from torch import nn

import saal_fast
from saal_fast.engines.ghost.backends import Backends
from saal_fast.engines.layers.conv import Conv
from saal_fast.engines.layers.linear import Linear
from saal_fast.ops.cross_entropy import cross_entropy
from saal_fast.ops.cross_entropy import reference as cross_entropy_reference
from saal_fast.ops.cross_entropy import triton as triton_cross_entropy
from saal_fast.ops.flat import flat_norm, flat_step
from saal_fast.ops.flat import reference as flat_reference
from saal_fast.ops.flat import triton as triton_flat
from saal_fast.ops.ghost import cpu as cpu_ghost
from saal_fast.ops.ghost import ghost_apply, ghost_norm
from saal_fast.ops.ghost import triton as triton_ghost

KERNELS = [  # an operator, its kernel on a CPU, and Triton's
    (ghost_norm, cpu_ghost.norm, triton_ghost.norm),
    (ghost_apply, cpu_ghost.apply, triton_ghost.apply),
    (cross_entropy, cross_entropy_reference.cross_entropy, triton_cross_entropy.cross_entropy),
    (flat_norm, flat_reference.norm, triton_flat.norm),
    (flat_step, flat_reference.step, triton_flat.step),
]


@pytest.fixture
def ran():
    """Gives CPU tensors to Triton's kernels; the names of the operators that ran."""
    names = set()

    def noted(op, kernel):
        def run(*args):
            names.add(op._name)
            return kernel(*args)

        return run

    for op, _, kernel in KERNELS:
        op.register_kernel("cpu")(noted(op, kernel))
    yield names
    for op, kernel, _ in KERNELS:
        op.register_kernel("cpu")(kernel)


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
def test_ghost_engine(rule, ran):
    torch.manual_seed(0)
    model, pool = Network(), torch.randn(3, 2, 7, 7)
    want = saal_fast.score(model.double(), pool.double(), 0.3, engine="reference", details=True, **rule)
    ran.clear()
    fused = Backends(fused_layers=(Conv, Linear), fused_loss=True, flat=True)
    modes = {"backends": fused, "choose": lambda _, linear: "ghost" if linear else "autograd"}
    got = scored(model.float(), pool, 0.3, engine="ghost", **modes, **rule)
    assert len(ran) == (5 if not rule else 3)
    assert torch.equal(got.label, want.label)
    for what in ("perturbed_loss", "loss", "grad_norm"):
        torch.testing.assert_close(getattr(got, what).double(), getattr(want, what), rtol=1e-4, atol=1e-6)
