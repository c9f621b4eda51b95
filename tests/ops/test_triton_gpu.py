"""Last rung: every Triton kernel on a CUDA device, through the operators, against the reference in fp64."""

from __future__ import annotations

import pytest
import torch
from drawn import RULES, TOLERANCE, close, convs, linears, rows_of_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from saal_fast.ops.cross_entropy import cross_entropy
from saal_fast.ops.cross_entropy import reference as cross_entropy_reference
from saal_fast.ops.flat import flat_norm, flat_step
from saal_fast.ops.flat import reference as flat_reference
from saal_fast.ops.ghost import ghost_apply, ghost_norm
from saal_fast.ops.ghost import reference as ghost_reference
from saal_fast.ops.tiles import reference as tile_reference
from saal_fast.ops.tiles import tile_apply, tile_norm

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
several = settings(max_examples=60, deadline=None)
layers = st.one_of(linears(), convs())


@several
@given(drawn=layers, rule=st.sampled_from(RULES))
def test_tiles(drawn, rule):
    drawn = drawn.exact()
    on, wide, last = drawn.to("cuda"), drawn.double(), (drawn.window, *rule)
    norm = tile_norm(on.a, on.g, on.weight, *last)
    close(norm, tile_reference.norm(wide.a, wide.g, wide.weight, *last), drawn.a.dtype)
    close(tile_apply(*on[:5], *last), tile_reference.apply(*wide[:5], *last), drawn.a.dtype)


@several
@given(drawn=layers, bias=st.booleans(), based=st.booleans())
def test_ghosts(drawn, bias, based):
    on, wide, last = drawn.to("cuda"), drawn.double(), (drawn.window, bias)
    args, expected_args = ((d.a, d.g, d.x, d.scales, d.base if based else None) for d in (on, wide))
    close(ghost_norm(on.a, on.g, *last), ghost_reference.norm(wide.a, wide.g, *last), drawn.a.dtype)
    close(ghost_apply(*args, *last), ghost_reference.apply(*expected_args, *last), drawn.a.dtype)


@several
@given(logits=rows_of_logits())
def test_cross_entropy(logits):
    y, loss, grad = (t.cpu() for t in cross_entropy(logits.cuda()))
    expected = cross_entropy_reference.cross_entropy(logits.double())
    visible = expected[1] > 1e-30
    assert torch.equal(y, expected[0])
    torch.testing.assert_close(loss.double()[visible], expected[1][visible], rtol=1e-4, atol=0)
    torch.testing.assert_close(grad.double()[visible], expected[2][visible], **TOLERANCE[logits.dtype])


@pytest.mark.parametrize(("rule", "q"), RULES)
def test_flat(rule, q):
    g, w, scales = torch.randn(5, 4099), torch.randn(4099), torch.rand(5)
    norm = flat_norm(g.cuda(), w.cuda(), rule, q)
    close(norm, flat_reference.norm(g.double(), w.double(), rule, q), torch.float32)
    stepped = flat_step(g.cuda(), w.cuda(), scales.cuda(), rule, q)
    close(stepped, flat_reference.step(g.double(), w.double(), scales.double(), rule, q), torch.float32)


def test_a_long_sum_over_positions_is_the_same_each_time():
    """T beyond a block: a program reads back what it wrote, which it must wait for."""
    a, g, x = (torch.randn(8, 700, 96, device="cuda") for _ in range(3))
    scales = torch.rand(8, device="cuda")
    outs = [ghost_apply(a, g, x, scales, None, None, True) for _ in range(20)]
    assert all(torch.equal(outs[0], out) for out in outs)
    expected = ghost_reference.apply(*(t.cpu().double() for t in (a, g, x, scales)), None, None, True)
    close(outs[0], expected, torch.float32)
