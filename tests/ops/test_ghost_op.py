from __future__ import annotations

import pytest
import torch
from drawn import close, convs, layer_of, linears, wide_dtypes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast.ops.ghost import cpu, ghost_apply, ghost_norm, gram_linear, gram_norm, reference

several = settings(max_examples=40, deadline=None)
layers = st.one_of(linears(), convs())
LINEAR = layer_of([(2, 3, 4), (2, 3, 5), (2, 6, 4), (5, 4)], None, dtype=torch.float64)
WINDOW = [3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 2]
CONV = layer_of([(2, 4, 5, 5), (2, 6, 3, 3), (2, 4, 7, 7), (6, 2, 3, 3)], WINDOW, dtype=torch.float64)
both = pytest.mark.parametrize("drawn", [LINEAR, CONV], ids=["linear", "conv"])


def norm(drawn, bias, of=ghost_norm):
    return of(drawn.a, drawn.g, drawn.window, bias)


def apply(drawn, base, bias, of=ghost_apply):
    return of(drawn.a, drawn.g, drawn.x, drawn.scales, base, drawn.window, bias)


@several
@given(drawn=layers, bias=st.booleans(), based=st.booleans(), of=st.sampled_from([(ghost_norm, ghost_apply), None]))
def test_is_the_norm_and_the_layer_with_the_gradients_for_its_weights(drawn, bias, based, of):
    drawn, of = drawn.double(), of or (reference.norm, reference.apply)
    norms = torch.zeros(len(drawn.a), dtype=torch.float64)
    expected = drawn.base.clone() if based else torch.zeros_like(drawn.base)
    for i, (w, b) in enumerate(drawn.gradients()):
        norms[i] = w.square().sum() + (b.square().sum() if bias else 0)
        expected[i] += drawn.scales[i] * drawn.layer(drawn.x[i][None], w, b if bias else None)[0]
    close(norm(drawn, bias, of[0]), norms)
    close(apply(drawn, drawn.base if based else None, bias, of[1]), expected)


@several
@given(drawn=layers)
def test_half_precision_is_widened(drawn):
    assert norm(drawn, True).dtype == torch.float32
    out = apply(drawn, drawn.base, True)
    assert out.dtype == drawn.base.dtype
    close(out, apply(drawn.double(), drawn.base.double(), True))


@both
def test_vmap_equals_a_loop(drawn):
    tensors = [torch.stack([t, 2 * t, t + 1]) for t in (drawn.a, drawn.g, drawn.x, drawn.scales, drawn.base)]
    last = (drawn.window, True)
    expected = torch.stack([ghost_norm(a, g, *last) for a, g in zip(*tensors[:2], strict=True)])
    out = vmap(lambda a, g: ghost_norm(a, g, *last), in_dims=(1, 0))(tensors[0].movedim(0, 1), tensors[1])
    torch.testing.assert_close(out, expected)
    expected = torch.stack([ghost_apply(*each, *last) for each in zip(*tensors, strict=True)])
    torch.testing.assert_close(vmap(lambda *t: ghost_apply(*t, *last))(*tensors), expected)
    a, g, _, scales, _ = tensors  # one x for all samples, and nothing to add to
    expected = torch.stack([ghost_apply(*each, None, *last) for each in zip(a, g, [drawn.x] * 3, scales, strict=True)])
    of_each = vmap(lambda a, g, x, s: ghost_apply(a, g, x, s, None, *last), in_dims=(0, 0, None, 0))
    torch.testing.assert_close(of_each(a, g, drawn.x, scales), expected)


@both
def test_opcheck(drawn):
    library.opcheck(ghost_norm, (drawn.a, drawn.g, drawn.window, True))
    for base, bias in ((drawn.base, False), (None, True)):
        library.opcheck(ghost_apply, (drawn.a, drawn.g, drawn.x, drawn.scales, base, drawn.window, bias))


@both
@pytest.mark.parametrize("wrong", range(5))
def test_shapes_that_do_not_fit_are_told(drawn, wrong):
    bad = [drawn.a, drawn.g, drawn.x, drawn.scales, drawn.base]
    bad[wrong] = bad[wrong][:1] if wrong < 4 else bad[wrong][..., :-1]
    with pytest.raises(ValueError, match=r"expected a \[N.*got a \[") as told:
        ghost_apply(*bad, drawn.window, True)
    assert str(list(bad[wrong].shape)) in str(told.value)


@several
@given(drawn=linears(wide_dtypes), bias=st.booleans(), based=st.booleans(), of=st.sampled_from([cpu, reference, None]))
def test_from_products_at_hand(drawn, bias, based, of):
    norm_of, linear_of = of.gram_norm if of else gram_norm, of.gram_linear if of else gram_linear
    wide, b = drawn.double(), drawn.weight[:, 0].contiguous() if based else None
    close(norm_of(drawn.a @ drawn.a.mT, drawn.g, bias), reference.norm(wide.a, wide.g, None, bias))
    got = linear_of(drawn.x @ drawn.a.mT, drawn.g, drawn.x, drawn.scales, drawn.weight, b, bias)
    base = torch.nn.functional.linear(wide.x, wide.weight, None if b is None else b.double())
    close(got, reference.apply(wide.a, wide.g, wide.x, wide.scales, base, None, bias))


def test_products_under_vmap_and_opcheck():
    a, g, x, weight, scales = LINEAR.a, LINEAR.g, LINEAR.x, LINEAR.weight, LINEAR.scales
    products, last = x @ a.mT, (weight, weight[:, 0].contiguous(), True)
    library.opcheck(gram_norm, (a @ a.mT, g, True))
    library.opcheck(gram_linear, (products, g, x, scales, *last))
    made = vmap(lambda *t: gram_linear(*(each[None] for each in t), *last)[0])(products, g, x, scales)
    torch.testing.assert_close(made, gram_linear(products, g, x, scales, *last))
    torch.testing.assert_close(
        vmap(lambda p, g: gram_norm(p[None], g[None], True)[0])(products[:, :3], g), gram_norm(products[:, :3], g, True)
    )


def test_products_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"expected products \[N, T', T\].*got products \[2, 3, 4\]"):
        gram_norm(LINEAR.a, LINEAR.g, True)
    products = LINEAR.x @ LINEAR.a.mT
    with pytest.raises(ValueError, match=r"weight \[4, 5\]"):
        gram_linear(products, LINEAR.g, LINEAR.x, LINEAR.scales, LINEAR.weight.T.contiguous(), None, True)
