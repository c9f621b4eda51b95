from __future__ import annotations

import pytest
import torch
from torch.func import vmap

from saal_fast.engines.ghost.autograd import FlatGradients, SeparateGradients
from saal_fast.ops.flat import flatten_parameters
from saal_fast.perturbation import L2, Adaptive, Lp


@pytest.mark.parametrize("rule", [L2(0.1), Lp(0.1, 3), Lp(0.1, torch.inf), Adaptive(0.1)])
def test_packed_equals_one_by_one(rule):
    shapes = {"scale": (5,), "kernel": (2, 3), "number": ()}
    params = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    grads = {name: torch.randn(4, *shape, dtype=torch.float64) for name, shape in shapes.items()}

    def stepped(kind):
        def one(grads):
            formed = kind(grads)
            unit = rule.unit(formed.sizes())
            total = formed.total(unit)
            return total, formed.perturbed(rule.scale(total))

        return vmap(one)(grads)

    want = stepped(lambda g: SeparateGradients(rule, params, g))
    got = stepped(lambda g: FlatGradients(rule.code, params, flatten_parameters(params), g))
    torch.testing.assert_close(got, want)
    assert list(got[1]) == list(params)
