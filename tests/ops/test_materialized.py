"""Gradients that are formed once and kept: the C++ kernel against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import FEW_RULES, RULES, close, laid_out, layer_of
from hypothesis import given, settings
from test_tiles import ADAPTIVE, CONV, LINEAR, WINDOW, apply, layers, rules
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops.common.window import Window
from saal_fast.ops.materialized import apply_materialized, materialize_gradient, materialized_size, reference

L2 = ("l2", 2.0)


def both(drawn, rule, materialize=materialize_gradient, of=apply_materialized):
    norms, gradient = materialize(drawn.a, drawn.g, drawn.weight, drawn.window, *rule)
    assert gradient.shape == (len(drawn.a), materialized_size(drawn.weight, Window.of(drawn.window).groups))
    return norms, of(gradient, drawn.x, drawn.weight, drawn.scales, drawn.window, *rule)


def expected_of(drawn, rule):
    return both(drawn, rule, reference.materialize, reference.apply)


def close_pairs(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        close(one, other, size=1e-3)


@settings(max_examples=200, deadline=None)
@given(drawn=layers, rule=rules)
def test_equals_the_reference(drawn, rule):
    drawn = drawn.exact()
    close_pairs(both(drawn, rule), expected_of(drawn, rule))


@pytest.mark.parametrize("layout", ["plain", "channels last", "sparse"])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != ("lp", 1.0)])  # a sign may differ where a sum cancels
def test_large_layers_equal_the_reference(rule, layout):
    """Several blocks of strips and panels, the last of them half; the output is laid out as the input."""
    shapes = (3, 24, 19, 17), (3, 70, 19, 17), (3, 24, 18, 17), (70, 24, 3, 3)
    drawn = layer_of(shapes, [3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    drawn = drawn._replace(**{name: laid_out(getattr(drawn, name), layout) for name in ("a", "g", "x")})
    out = both(drawn, rule)
    close_pairs(out, expected_of(drawn, rule))
    assert out[1].is_contiguous(memory_format=torch.channels_last) == (layout == "channels last")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("drawn", [LINEAR, CONV], ids=["linear", "conv"])
def test_is_what_tiles_compute(drawn, rule):
    close(both(drawn, rule)[1], apply(drawn, rule), size=1e-3)


@pytest.mark.parametrize("drawn", [LINEAR, CONV], ids=["linear", "conv"])
def test_without_a_step_it_is_the_layer_itself(drawn):
    plain = drawn.layer(drawn.x, drawn.weight)
    close(both(drawn._replace(scales=torch.zeros(3)), L2)[1], plain, size=1e-3)


@pytest.mark.parametrize("rule", FEW_RULES)
@pytest.mark.parametrize("drawn", [LINEAR, CONV], ids=["linear", "conv"])
def test_opcheck(drawn, rule):
    last = (drawn.window, *rule)
    library.opcheck(materialize_gradient, (drawn.a, drawn.g, drawn.weight, *last))
    gradient = materialize_gradient(drawn.a, drawn.g, drawn.weight, *last)[1]
    library.opcheck(apply_materialized, (gradient, drawn.x, drawn.weight, drawn.scales, *last))


@pytest.mark.parametrize("weights", [None, 0])
@pytest.mark.parametrize("drawn", [LINEAR, CONV], ids=["linear", "conv"])
def test_one_sample_at_a_time_under_vmap_equals_the_batch(drawn, weights):
    def one(a, g, x, weight, s):
        norms, out = both(drawn._replace(a=a[None], g=g[None], x=x[None], weight=weight, scales=s[None]), ADAPTIVE)
        return norms[0], out[0]

    weight = drawn.weight if weights is None else torch.stack([drawn.weight * k for k in (1, 2, 3)])
    got = vmap(one, in_dims=(0, 0, 0, weights, 0))(drawn.a, drawn.g, drawn.x, weight, drawn.scales)
    for i, (a, g, x, s) in enumerate(zip(drawn.a, drawn.g, drawn.x, drawn.scales, strict=True)):
        mine = drawn.weight if weights is None else weight[i]
        close_pairs([t[i] for t in got], one(a, g, x, mine, s))


def test_empty_batches():
    none = CONV._replace(a=CONV.a[:0], g=CONV.g[:0], x=CONV.x[:0], scales=CONV.scales[:0])
    norms, out = both(none, L2)
    assert norms.shape == (0,)
    assert out.shape == (0, *CONV.base.shape[1:])


def test_bad_arguments():
    last = (WINDOW, *L2)
    with pytest.raises(ValueError, match=r"expected a \[N, C, H, W\]"):
        materialize_gradient(CONV.a[:2], CONV.g, CONV.weight, *last)
    with pytest.raises(ValueError, match=r"expected materialized gradients of \d+ contiguous numbers, got"):
        apply_materialized(torch.zeros(3, 8), CONV.x, CONV.weight, CONV.scales, *last)
    with pytest.raises(ValueError, match=r"expected a scale for each sample"):
        both(CONV._replace(scales=CONV.scales[:2]), L2)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
def test_every_instruction_set_and_any_threads(isa):
    window = Window.of(WINDOW)
    geometry = (window.for_core(), "adaptive", 2.0)
    gradient = torch.full((3, materialized_size(CONV.weight, window.groups)), math.nan)
    norms = _native.core().tile_norm(
        *(t.numpy() for t in (CONV.a, CONV.g, CONV.weight)), *geometry, gradient.numpy(), 2, isa
    )
    expected, want = expected_of(CONV, ADAPTIVE)
    close(torch.from_numpy(norms), expected, size=1e-3)
    for threads in (1, 2, 3):
        out = torch.full_like(want, math.nan)
        tensors = (t.numpy() for t in (gradient, CONV.x, CONV.weight, CONV.scales, out))
        _native.core().apply_materialized(*tensors, *geometry, threads, isa)
        close(out, want, size=1e-3)
