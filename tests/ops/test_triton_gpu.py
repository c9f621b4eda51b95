"""Last rung: every twin on a CUDA device, through the operators, against the reference in fp64."""

from __future__ import annotations

import pytest
import torch
from drawn import RULES, TOLERANCE, convs, linears, rows_of_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from saal_fast.ops import conv_tiles, cross_entropy, direct, ghost_l2, tiles
from saal_fast.ops.triton import register

assert register
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
several = settings(max_examples=60, deadline=None)
layers = st.one_of(linears(), convs())


def close(actual, expected, dtype):
    scale = max(float(expected.abs().max()) if expected.numel() else 1.0, 1.0)
    torch.testing.assert_close(actual.cpu().double() / scale, expected / scale, **TOLERANCE[dtype])


@several
@given(drawn=layers, rule=st.sampled_from(RULES))
def test_tiles(drawn, rule):
    drawn = drawn._replace(a=drawn.a.mul(2).round(), g=drawn.g.mul(2).round())  # exact signs
    on, wide = drawn.to("cuda"), drawn.double()
    if drawn.window is None:
        norm, expected = tiles.tile_norm(on.a, on.g, on.weight, *rule), tiles.reference_norm(*wide[:2], wide.weight, *rule)
        out, reference = tiles.tile_apply(*on[:5], *rule), tiles.reference_apply(*wide[:5], *rule)
    else:
        rest = (*drawn.window[1:], *rule)
        norm = conv_tiles.conv_tile_norm(on.a, on.g, on.weight, *rest)
        expected = conv_tiles.reference_norm(*wide[:2], wide.weight, *rest)
        out, reference = conv_tiles.conv_tile_apply(*on[:5], *rest), conv_tiles.reference_apply(*wide[:5], *rest)
    close(norm, expected, drawn.a.dtype)
    close(out, reference, drawn.a.dtype)


@several
@given(drawn=layers, bias=st.booleans(), based=st.booleans())
def test_ghosts(drawn, bias, based):
    on, wide = drawn.to("cuda"), drawn.double()
    args, expected_args = ((d.a, d.g, d.x, d.scales, d.base if based else None) for d in (on, wide))
    if drawn.window is None:
        norm, expected = ghost_l2.ghost_norm(on.a, on.g, bias), ghost_l2.reference_norm(wide.a, wide.g, bias)
        out, reference = ghost_l2.ghost_apply(*args, bias), ghost_l2.reference_apply(*expected_args, bias)
    else:
        rest = (*drawn.window, bias)
        norm = ghost_l2.conv_ghost_norm(on.a, on.g, *rest)
        expected = ghost_l2.reference_conv_norm(wide.a, wide.g, *rest)
        out, reference = ghost_l2.conv_ghost_apply(*args, *rest), ghost_l2.reference_conv_apply(*expected_args, *rest)
    close(norm, expected, drawn.a.dtype)
    close(out, reference, drawn.a.dtype)


@several
@given(logits=rows_of_logits(), over_loss=st.booleans())
def test_cross_entropy(logits, over_loss):
    y, loss, grad = (t.cpu() for t in cross_entropy.cross_entropy(logits.cuda(), None, None, over_loss))
    expected = cross_entropy.reference(logits.double(), None, None, over_loss)
    visible = expected[1] > 1e-30
    assert torch.equal(y, expected[0])
    torch.testing.assert_close(loss.double()[visible], expected[1][visible], rtol=1e-4, atol=0)
    loosened = TOLERANCE[logits.dtype]
    torch.testing.assert_close(grad.double()[visible], expected[2][visible], **loosened)


@pytest.mark.parametrize(("rule", "q"), RULES)
def test_direct(rule, q):
    g, w, scales = torch.randn(5, 4099), torch.randn(4099), torch.rand(5)
    norm = direct.direct_norm(g.cuda(), w.cuda(), rule, q)
    close(norm, direct.reference_norm(g.double(), w.double(), rule, q), torch.float32)
    moved = direct.direct_move(g.cuda(), w.cuda(), scales.cuda(), rule, q)
    close(moved, direct.reference_move(g.double(), w.double(), scales.double(), rule, q), torch.float32)


def test_a_long_sum_over_positions_is_the_same_each_time():
    """T beyond a block: a program reads back what it wrote, which it must wait for."""
    a, g, x = (torch.randn(8, 700, 96, device="cuda") for _ in range(3))
    scales = torch.rand(8, device="cuda")
    outs = [ghost_l2.ghost_apply(a, g, x, scales, None, True) for _ in range(20)]
    assert all(torch.equal(outs[0], out) for out in outs)
    expected = ghost_l2.reference_apply(*(t.cpu().double() for t in (a, g, x, scales)), None, True)
    close(outs[0], expected, torch.float32)
