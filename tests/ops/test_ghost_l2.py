from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drawn import TOLERANCE, convs, linears
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast.ops import ghost_l2 as op

EXACT = {"rtol": 1e-10, "atol": 1e-10}
several = settings(max_examples=40, deadline=None)


def layer_of(window):
    """A layer as PyTorch has it: a function of one sample's input, weight and bias."""
    if window is None:
        return F.linear
    _, stride, padding, dilation, groups = window
    top, bottom, left, right = padding
    return lambda x, w, b: F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride, 0, dilation, groups)


def gradients(drawn):
    """Each sample's gradients at weight and bias, by autograd."""
    layer, both = layer_of(drawn.window), []
    for a, g in zip(drawn.a, drawn.g, strict=True):
        w = drawn.weight.clone().requires_grad_()
        b = torch.zeros(len(w), dtype=w.dtype, requires_grad=True)
        both.append(torch.autograd.grad((layer(a[None], w, b) * g[None]).sum(), (w, b)))
    return both


def norm(drawn, bias, norms=(op.ghost_norm, op.conv_ghost_norm)):
    return norms[0](drawn.a, drawn.g, bias) if drawn.window is None else norms[1](drawn.a, drawn.g, *drawn.window, bias)


def apply(drawn, base, bias):
    args = (drawn.a, drawn.g, drawn.x, drawn.scales, base)
    return op.ghost_apply(*args, bias) if drawn.window is None else op.conv_ghost_apply(*args, *drawn.window, bias)


@several
@given(drawn=st.one_of(linears(), convs()), bias=st.booleans())
def test_norm_is_that_of_the_gradients(drawn, bias):
    drawn = drawn.double()
    expected = [w.square().sum() + (b.square().sum() if bias else 0) for w, b in gradients(drawn)]
    torch.testing.assert_close(norm(drawn, bias), torch.tensor(expected, dtype=torch.float64), **EXACT)


@several
@given(drawn=st.one_of(linears(), convs()), bias=st.booleans(), based=st.booleans())
def test_apply_is_the_layer_with_the_gradients_for_its_weights(drawn, bias, based):
    drawn, layer = drawn.double(), layer_of(drawn.window)
    expected = drawn.base.clone() if based else torch.zeros_like(drawn.base)
    for i, (w, b) in enumerate(gradients(drawn)):
        expected[i] += drawn.scales[i] * layer(drawn.x[i][None], w, b if bias else None)[0]
    torch.testing.assert_close(apply(drawn, drawn.base if based else None, bias), expected, **EXACT)


@several
@given(drawn=st.one_of(linears(), convs()))
def test_half_precision_is_widened(drawn):
    assert norm(drawn, True).dtype == torch.float32
    out = apply(drawn, drawn.base, True)
    assert out.dtype == drawn.base.dtype
    scale = out.abs().amax().clamp_min(1) if out.numel() else 1
    wide = apply(drawn.double(), drawn.base.double(), True)
    torch.testing.assert_close(out.double() / scale, wide / scale, **TOLERANCE[out.dtype])


def inputs(*lead):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    linear = [draw(*lead, 2, 3, 4), draw(*lead, 2, 3, 5), draw(*lead, 2, 6, 4), draw(*lead, 2), draw(*lead, 2, 6, 5)]
    conv = [
        draw(*lead, 2, 4, 5, 5),
        draw(*lead, 2, 6, 3, 3),
        draw(*lead, 2, 4, 7, 7),
        draw(*lead, 2),
        draw(*lead, 2, 6, 4, 4),
    ]
    return linear, (), conv, ([3, 3], [2, 2], [1, 1, 1, 1], [1, 1], 2)


def test_vmap_equals_a_loop():
    linear, none, conv, window = inputs(3)
    for tensors, rest, of_norm, of_apply in (
        (linear, none, op.ghost_norm, op.ghost_apply),
        (conv, window, op.conv_ghost_norm, op.conv_ghost_apply),
    ):
        expected = torch.stack([of_norm(a, g, *rest, True) for a, g in zip(*tensors[:2], strict=True)])
        moved = [tensors[0].movedim(0, 1), tensors[1]]
        out = vmap(lambda a, g, of=of_norm, r=rest: of(a, g, *r, True), in_dims=(1, 0))(*moved)
        torch.testing.assert_close(out, expected)
        expected = torch.stack([of_apply(*each, *rest, True) for each in zip(*tensors, strict=True)])
        out = vmap(lambda *t, of=of_apply, r=rest: of(*t, *r, True))(*tensors)
        torch.testing.assert_close(out, expected)
        shared = tensors[2][0]  # one x for all samples, and nothing to add to
        expected = torch.stack(
            [of_apply(a, g, shared, s, None, *rest, True) for a, g, _, s, _ in zip(*tensors, strict=True)]
        )
        out = vmap(lambda a, g, x, s, of=of_apply, r=rest: of(a, g, x, s, None, *r, True), in_dims=(0, 0, None, 0))(
            tensors[0], tensors[1], shared, tensors[3]
        )
        torch.testing.assert_close(out, expected)


def test_opcheck():
    linear, _, conv, window = inputs()
    library.opcheck(op.ghost_norm, (*linear[:2], True))
    library.opcheck(op.ghost_apply, (*linear, False))
    library.opcheck(op.ghost_apply, (*linear[:4], None, True))
    library.opcheck(op.conv_ghost_norm, (*conv[:2], *window, True))
    library.opcheck(op.conv_ghost_apply, (*conv, *window, True))


@pytest.mark.parametrize("wrong", range(5))
def test_shapes_that_do_not_fit_are_told(wrong):
    linear, _, conv, window = inputs()
    for tensors, of in ((linear, op.ghost_apply), (conv, lambda *t: op.conv_ghost_apply(*t[:5], *window, True))):
        bad = list(tensors)
        bad[wrong] = bad[wrong][:1] if wrong < 4 else bad[wrong][..., :-1]
        with pytest.raises(ValueError, match=r"expected a \[N.*got a \[") as told:
            of(*bad, True)
        assert str(list(bad[wrong].shape)) in str(told.value)
