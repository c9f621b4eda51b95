"""Every kernel, run by Triton's interpreter, against the reference in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import RULES, TOLERANCE, Drawn, convs, linears, rows_of_logits, strided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saal_fast.ops import conv_tiles, cross_entropy, direct, ghost_l2, tiles
from saal_fast.ops.elementwise import native_map
from saal_fast.ops.triton import cross_entropy as triton_cross_entropy
from saal_fast.ops.triton import direct as triton_direct
from saal_fast.ops.triton import ghost as triton_ghost
from saal_fast.ops.triton import register
from saal_fast.ops.triton import tiles as triton_tiles
from saal_fast.ops.triton.launch import LINEAR, window

torch.use_deterministic_algorithms(True)  # fills new tensors with NaN: a kernel must write all it returns
several = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
both = pytest.mark.parametrize("kind", [linears, convs])


def window_of(drawn: Drawn):
    return LINEAR if drawn.window is None else window(*drawn.window)


def close(actual, expected, dtype, size=1.0):
    """Tolerances are those of numbers of size 1."""
    scale = max(float(expected.abs().max()) if expected.numel() else 1.0, size)
    torch.testing.assert_close(actual.double() / scale, expected.double() / scale, **TOLERANCE[dtype])


def kept_away_from_zero(drawn: Drawn) -> Drawn:
    """Whole numbers, whose products are exact: else a gradient of nearly 0 could have either sign."""
    return drawn._replace(a=drawn.a.mul(2).round(), g=drawn.g.mul(2).round())


@both
@several
@given(
    data=st.data(),
    rule=st.sampled_from(RULES),
    config=st.sampled_from([None, *triton_tiles.NORM_CONFIGS]),
    many=st.booleans(),
)
def test_tile_norm(kind, data, rule, config, many):
    drawn = data.draw(kind())
    triton_tiles.ENOUGH = 1 if many else 512  # with 1, a program walks over several samples
    if 0 in drawn.a.shape or 0 in drawn.g.shape or config is None:
        actual = triton_tiles.norm(drawn.a, drawn.g, drawn.weight, native_map(*rule), rule[1], window_of(drawn))
    else:
        launch, partial = triton_tiles.norm_launch(
            drawn.a, drawn.g, drawn.weight, native_map(*rule), rule[1], window_of(drawn), config
        )
        launch.run()
        actual = partial.sum(1)
    a, g, _, weight, *_ = drawn.double()
    if drawn.window is None:
        expected = tiles.reference_norm(a, g, weight, *rule)
    else:
        expected = conv_tiles.reference_norm(a, g, weight, *drawn.window[1:], *rule)
    close(actual, expected, drawn.a.dtype)


@both
@several
@given(data=st.data(), rule=st.sampled_from(RULES), config=st.sampled_from([None, *triton_tiles.APPLY_CONFIGS]))
def test_tile_apply(kind, data, rule, config):
    drawn = data.draw(kind())
    drawn = kept_away_from_zero(drawn)
    out = torch.full_like(drawn.base, torch.nan)
    args = (native_map(*rule), rule[1], window_of(drawn))
    if 0 in drawn.a.shape or 0 in drawn.g.shape or config is None:
        triton_tiles.apply(drawn.a, drawn.g, drawn.x, drawn.weight, drawn.scales, out, *args)
    else:
        triton_tiles.apply_launch(drawn.a, drawn.g, drawn.x, drawn.weight, drawn.scales, out, *args, config).run()
    a, g, x, weight, scales, *_ = drawn.double()
    if drawn.window is None:
        expected = tiles.reference_apply(a, g, x, weight, scales, *rule)
    else:
        expected = conv_tiles.reference_apply(a, g, x, weight, scales, *drawn.window[1:], *rule)
    close(out, expected, drawn.a.dtype)


@both
@several
@given(data=st.data(), bias=st.booleans(), config=st.sampled_from([None, *triton_ghost.NORM_CONFIGS]))
def test_ghost_norm(kind, data, bias, config):
    drawn = data.draw(kind())
    if 0 in drawn.g.shape or config is None:
        actual = triton_ghost.norm(drawn.a, drawn.g, bias, window_of(drawn))
    else:
        launch, partial = triton_ghost.norm_launch(drawn.a, drawn.g, bias, window_of(drawn), config)
        launch.run()
        actual = partial.sum(1)
    a, g, *_ = drawn.double()
    if drawn.window is None:
        expected = ghost_l2.reference_norm(a, g, bias)
    else:
        expected = ghost_l2.reference_conv_norm(a, g, *drawn.window, bias)
    close(actual, expected, drawn.a.dtype)


@both
@several
@given(data=st.data(), bias=st.booleans(), based=st.booleans(), config=st.sampled_from([None, *triton_ghost.APPLY_CONFIGS]))
def test_ghost_apply(kind, data, bias, based, config):
    drawn = data.draw(kind())
    base = drawn.base if based else None
    out = torch.full_like(drawn.base, torch.nan, dtype=None if config is None else torch.float32)
    args = (drawn.a, drawn.g, drawn.x, drawn.scales, base, out, bias, window_of(drawn))
    if 0 in drawn.g.shape or 0 in out.shape or config is None:
        triton_ghost.apply(*args)
    else:
        triton_ghost.apply_launch(*args, config).run()
    a, g, x, _, scales, wide, _ = drawn.double()
    wide = wide if based else None
    if drawn.window is None:
        expected = ghost_l2.reference_apply(a, g, x, scales, wide, bias)
    else:
        expected = ghost_l2.reference_conv_apply(a, g, x, scales, wide, *drawn.window, bias)
    close(out, expected, drawn.a.dtype)


@several
@given(
    logits=rows_of_logits(),
    given_label=st.booleans(),
    gained=st.booleans(),
    over_loss=st.booleans(),
    config=st.sampled_from([None, *triton_cross_entropy.CONFIGS]),
)
def test_cross_entropy(logits, given_label, gained, over_loss, config):
    n = len(logits)
    label = logits.argmin(1) if given_label else None
    if given_label:
        label = torch.where(logits.gather(1, label[:, None])[:, 0].isfinite(), label, logits.argmax(1))
    gain = torch.rand(n) + 0.5 if gained else None
    launch, (y, loss, grad) = triton_cross_entropy.launch(logits, label, gain, over_loss, cross_entropy.FLOOR, config)
    launch.run()
    expected = cross_entropy.reference(logits.double(), label, None if gain is None else gain.double(), over_loss)
    assert torch.equal(y, expected[0])
    assert y.dtype == torch.int64
    assert grad.dtype == logits.dtype
    visible = expected[1] > 1e-30  # below, fp32's exponentials are denormal or 0
    torch.testing.assert_close(loss.double()[visible], expected[1][visible], rtol=3e-5, atol=0)
    assert (loss[~visible] < 2e-30).all()
    loosened = TOLERANCE[logits.dtype] if logits.dtype != torch.float32 else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(grad.double()[visible], expected[2][visible], **loosened)


def test_cross_entropy_of_nan_is_nan():
    logits = torch.randn(3, 300)
    logits[0, 7], logits[1, 299], logits[2] = torch.nan, torch.nan, torch.nan
    for label in (None, torch.tensor([1, 2, 3])):
        y, loss, _ = triton_cross_entropy.cross_entropy(logits, label, None, False, 1e-15)
        assert loss.isnan().all()
        assert ((y >= 0) & (y < 300)).all()


def test_cross_entropy_over_imagenet_21k():
    logits = torch.randn(2, 21841, generator=torch.Generator().manual_seed(0)) * 3
    actual = triton_cross_entropy.cross_entropy(logits, None, None, False, 1e-15)
    for mine, theirs in zip(actual, cross_entropy.reference(logits.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-7)


@several
@given(data=st.data(), rule=st.sampled_from(RULES), config=st.sampled_from([None, *triton_direct.CONFIGS]))
def test_direct(data, rule, config):
    n, p = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 5, 1023, 1024, 4097]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    g, weight = data.draw(strided(n, p, dtype=dtype)), data.draw(strided(1, p, dtype=dtype))[0]
    scales = torch.rand(n) + 0.5
    launch, partial = triton_direct.norm_launch(g, weight, native_map(*rule), rule[1], config)
    launch.run()
    close(partial.sum(1), direct.reference_norm(g.double(), weight.double(), *rule), dtype)
    launch, moved = triton_direct.move_launch(g, weight, scales, native_map(*rule), rule[1], config)
    launch.run()
    close(moved, direct.reference_move(g.double(), weight.double(), scales.double(), *rule), dtype)


def test_a_small_step_in_fp16_is_not_lost():
    a, g, x = (torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(i)).half() for i in range(3))
    g = g * 1e-3
    weight = torch.full((16, 16), 1e-2).half()
    scales = torch.tensor([1e6])
    out = torch.empty(1, 20, 16, dtype=torch.float32)
    triton_tiles.apply(a, g, x, weight, scales, out, "adaptive", 2.0)
    expected = tiles.reference_apply(*(t.double() for t in (a, g, x, weight, scales)), "adaptive", 2.0)
    close(out, expected, torch.float16)


@pytest.mark.parametrize("t", [1, 130])
def test_products_beyond_fp16_do_not_overflow(t):
    a = x = torch.full((1, t, 64), 40.0).half()  # 40² · 64 > 65504
    g = torch.full((1, t, 3), 1e-4).half()
    out = torch.empty(1, t, 3).half()
    triton_ghost.apply(a, g, x, torch.tensor([1e-3]), None, out, False)
    expected = 40.0**2 * 64 * t * float(g[0, 0, 0]) * 1e-3
    assert math.isclose(float(out[0, 0, 0]), expected, rel_tol=2e-3)


@both
@several
@given(data=st.data(), rule=st.sampled_from(RULES), bias=st.booleans())
def test_what_operators_do_for_cuda_tensors(kind, data, rule, bias):
    drawn = data.draw(kind())
    drawn = kept_away_from_zero(drawn)
    wide, based = drawn.double(), (drawn.a, drawn.g, drawn.x, drawn.scales, drawn.base)
    wide_based = (wide.a, wide.g, wide.x, wide.scales, wide.base)
    if drawn.window is None:
        pairs = [
            (
                register._tile_norm(drawn.a, drawn.g, drawn.weight, *rule),
                tiles.reference_norm(wide.a, wide.g, wide.weight, *rule),
            ),
            (register._tile_apply(*drawn[:5], *rule), tiles.reference_apply(*wide[:5], *rule)),
            (ghost_l2._norm_cuda(drawn.a, drawn.g, bias), ghost_l2.reference_norm(wide.a, wide.g, bias)),
            (ghost_l2._apply_cuda(*based, bias), ghost_l2.reference_apply(*wide_based, bias)),
        ]
    else:
        last, ghost_last = (*drawn.window[1:], *rule), (*drawn.window, bias)
        pairs = [
            (
                register._conv_tile_norm(drawn.a, drawn.g, drawn.weight, *last),
                conv_tiles.reference_norm(wide.a, wide.g, wide.weight, *last),
            ),
            (register._conv_tile_apply(*drawn[:5], *last), conv_tiles.reference_apply(*wide[:5], *last)),
            (
                ghost_l2._conv_norm_cuda(drawn.a, drawn.g, *ghost_last),
                ghost_l2.reference_conv_norm(wide.a, wide.g, *ghost_last),
            ),
            (ghost_l2._conv_apply_cuda(*based, *ghost_last), ghost_l2.reference_conv_apply(*wide_based, *ghost_last)),
        ]
    for actual, expected in pairs:
        assert actual.dtype in (drawn.a.dtype, torch.float32)
        close(actual, expected, drawn.a.dtype)


def test_every_operator_has_a_cuda_twin():
    for name in [
        "tile_norm",
        "tile_apply",
        "conv_tile_norm",
        "conv_tile_apply",
        "ghost_norm",
        "ghost_apply",
        "conv_ghost_norm",
        "conv_ghost_apply",
        "cross_entropy",
        "direct_norm",
        "direct_move",
    ]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"saal_fast::{name}", "CUDA"), name
