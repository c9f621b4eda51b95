from __future__ import annotations

import pytest
import torch
from drawn import RULES
from torch import library
from torch.func import vmap

from saal_fast import perturbation
from saal_fast.ops.flat import flat_norm, flat_step, flatten_parameters, unflatten_parameters

SHAPES = {"scale": torch.Size([3]), "kernel": torch.Size([2, 3, 2]), "none": torch.Size([0]), "number": torch.Size([])}
OBJECTS = {"l2": lambda q: perturbation.L2(0.1), "adaptive": lambda q: perturbation.Adaptive(0.1)}
OBJECTS["lp"] = lambda q: perturbation.Lp(0.1, torch.inf if q == 1 else q / (q - 1))


def tensors(*lead):
    return {n: torch.randn((*lead, *s), dtype=torch.float64) for n, s in SHAPES.items()}


def test_flattening_and_its_inverse_also_under_vmap():
    each = tensors(5)
    flat = vmap(flatten_parameters)(each)
    assert flat.shape == (5, 16)
    back = vmap(lambda p: unflatten_parameters(p, SHAPES))(flat)
    assert back.keys() == each.keys()
    for name, t in back.items():
        assert torch.equal(t, each[name])
        assert t.numel() == 0 or t.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


@pytest.mark.parametrize(("rule", "q"), RULES)
def test_equals_the_rule_parameter_by_parameter(rule, q):
    grads, weights, of = tensors(4), tensors(), OBJECTS[rule](q)
    g, w, scales = vmap(flatten_parameters)(grads), flatten_parameters(weights), torch.rand(4, dtype=torch.float64)
    totals = torch.stack([sum(of.contribution(grads[n][i], weights[n]) for n in grads) for i in range(4)])
    torch.testing.assert_close(flat_norm(g, w, rule, q), totals)
    stepped = vmap(lambda p: unflatten_parameters(p, SHAPES))(flat_step(g, w, scales, rule, q))
    for n in grads:
        each = [weights[n] + s * of.direction(t, weights[n]) for s, t in zip(scales, grads[n], strict=True)]
        torch.testing.assert_close(stepped[n], torch.stack(each))


def test_vmap_equals_a_loop():
    g, w, scales = torch.randn(3, 2, 7), torch.randn(7), torch.rand(3, 2)
    out = vmap(lambda g: flat_norm(g, w, "adaptive", 2.0))(g)
    torch.testing.assert_close(out, torch.stack([flat_norm(t, w, "adaptive", 2.0) for t in g]))
    out = vmap(lambda g, s: flat_step(g, w, s, "lp", 1.5))(g, scales)
    each = [flat_step(t, w, s, "lp", 1.5) for t, s in zip(g, scales, strict=True)]
    torch.testing.assert_close(out, torch.stack(each))


def test_opcheck():
    g, w = torch.randn(3, 5), torch.randn(5)
    library.opcheck(flat_norm, (g, w, "lp", 1.5))
    library.opcheck(flat_step, (g.bfloat16(), w, torch.rand(3), "adaptive", 2.0))


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"expected g \[N, P\].*got g \[3, 5\], weight \[4\]"):
        flat_norm(torch.zeros(3, 5), torch.zeros(4), "l2", 2.0)
    with pytest.raises(ValueError, match=r"scales \[2\]"):
        flat_step(torch.zeros(3, 5), torch.zeros(5), torch.zeros(2), "l2", 2.0)
