"""Every kernel, run by Triton's interpreter, against the reference in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import RULES, TOLERANCE, close, convs, linears, rows_of_logits, strided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saal_fast.ops.common.window import LINEAR, Window
from saal_fast.ops.cross_entropy import reference as cross_entropy_reference
from saal_fast.ops.cross_entropy import triton as triton_cross_entropy
from saal_fast.ops.flat import reference as flat_reference
from saal_fast.ops.flat import triton as triton_flat
from saal_fast.ops.ghost import reference as ghost_reference
from saal_fast.ops.ghost import triton as triton_ghost
from saal_fast.ops.tiles import reference as tile_reference
from saal_fast.ops.tiles import triton as triton_tiles

torch.use_deterministic_algorithms(True)  # fills new tensors with NaN: a kernel must write all it returns
several = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
both = pytest.mark.parametrize("kind", [linears, convs])


@both
@several
@given(
    data=st.data(),
    rule=st.sampled_from(RULES),
    config=st.sampled_from([None, *triton_tiles.NORM_CONFIGS]),
    many=st.booleans(),
)
def test_tile_norm(kind, data, rule, config, many):
    drawn = data.draw(kind()).exact()
    triton_tiles.BUSY_PROGRAMS = 1 if many else 512  # with 1, a program walks over several samples
    if 0 in drawn.a.shape or 0 in drawn.g.shape or config is None:
        actual = triton_tiles.norm(drawn.a, drawn.g, drawn.weight, drawn.window, *rule)
    else:
        launch, partial = triton_tiles.norm_launch(drawn.a, drawn.g, drawn.weight, Window.of(drawn.window), *rule, config)
        launch.run()
        actual = partial.sum(1)
    wide = drawn.double()
    close(actual, tile_reference.norm(wide.a, wide.g, wide.weight, drawn.window, *rule), drawn.a.dtype)


@both
@several
@given(data=st.data(), rule=st.sampled_from(RULES), config=st.sampled_from([None, *triton_tiles.APPLY_CONFIGS]))
def test_tile_apply(kind, data, rule, config):
    drawn = data.draw(kind()).exact()
    wide = drawn.double()
    expected = tile_reference.apply(*wide[:5], drawn.window, *rule)
    if 0 in drawn.a.shape or 0 in drawn.g.shape or config is None:
        actual = triton_tiles.apply(*drawn[:5], drawn.window, *rule)
        assert actual.dtype == drawn.g.dtype
    else:
        actual = torch.full(drawn.base.shape, torch.nan, dtype=drawn.g.dtype)
        triton_tiles.step_launch(*drawn[:5], actual, Window.of(drawn.window), *rule, config).run()
        expected -= wide.layer(wide.x, wide.weight)
    close(actual, expected, drawn.a.dtype)


@both
@several
@given(data=st.data(), bias=st.booleans(), config=st.sampled_from([None, *triton_ghost.NORM_CONFIGS]))
def test_ghost_norm(kind, data, bias, config):
    drawn = data.draw(kind())
    if 0 in drawn.g.shape or config is None:
        actual = triton_ghost.norm(drawn.a, drawn.g, drawn.window, bias)
    else:
        launch, partial = triton_ghost.norm_launch(drawn.a, drawn.g, Window.of(drawn.window), bias, config)
        launch.run()
        actual = partial.sum(1)
    wide = drawn.double()
    close(actual, ghost_reference.norm(wide.a, wide.g, drawn.window, bias), drawn.a.dtype)


@both
@several
@given(data=st.data(), bias=st.booleans(), based=st.booleans(), config=st.sampled_from([None, *triton_ghost.APPLY_CONFIGS]))
def test_ghost_apply(kind, data, bias, based, config):
    drawn = data.draw(kind())
    args, wide_args = ((d.a, d.g, d.x, d.scales, d.base if based else None) for d in (drawn, drawn.double()))
    if 0 in drawn.g.shape or config is None:
        actual = triton_ghost.apply(*args, drawn.window, bias)
        assert actual.dtype == drawn.g.dtype
    else:
        actual = torch.full(drawn.base.shape, torch.nan)
        triton_ghost.apply_launch(*args, actual, Window.of(drawn.window), bias, config).run()
    close(actual, ghost_reference.apply(*wide_args, drawn.window, bias), drawn.a.dtype)


@several
@given(logits=rows_of_logits(), given_label=st.booleans(), config=st.sampled_from([None, *triton_cross_entropy.CONFIGS]))
def test_cross_entropy(logits, given_label, config):
    label = logits.argmin(1) if given_label else None
    if given_label:
        label = torch.where(logits.gather(1, label[:, None])[:, 0].isfinite(), label, logits.argmax(1))
    launch, (y, loss, grad) = triton_cross_entropy.launch(logits, label, config)
    launch.run()
    expected = cross_entropy_reference.cross_entropy(logits.double(), label)
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
        y, loss, _ = triton_cross_entropy.cross_entropy(logits, label)
        assert loss.isnan().all()
        assert ((y >= 0) & (y < 300)).all()


def test_cross_entropy_over_imagenet_21k():
    logits = torch.randn(2, 21841, generator=torch.Generator().manual_seed(0)) * 3
    actual = triton_cross_entropy.cross_entropy(logits)
    for mine, theirs in zip(actual, cross_entropy_reference.cross_entropy(logits.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-7)


@several
@given(data=st.data(), rule=st.sampled_from(RULES), config=st.sampled_from([None, *triton_flat.CONFIGS]))
def test_flat(data, rule, config):
    n, p = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 5, 1023, 1024, 4097]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    g, weight = data.draw(strided(n, p, dtype=dtype)), data.draw(strided(1, p, dtype=dtype))[0]
    scales = torch.rand(n) + 0.5
    launch, partial = triton_flat.norm_launch(g, weight, *rule, config)
    launch.run()
    close(partial.sum(1), flat_reference.norm(g.double(), weight.double(), *rule), dtype)
    launch, stepped = triton_flat.step_launch(g, weight, scales, *rule, config)
    launch.run()
    close(stepped, flat_reference.step(g.double(), weight.double(), scales.double(), *rule), dtype)


def test_a_small_step_in_fp16_is_not_lost():
    a, g, x = (torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(i)).half() for i in range(3))
    g = g * 1e-3
    weight = torch.full((16, 16), 1e-2).half()
    scales = torch.tensor([1e6])
    out = torch.empty(1, 20, 16, dtype=torch.float32)
    triton_tiles.step_launch(a, g, x, weight, scales, out, LINEAR, "adaptive", 2.0).run()
    wide = [t.double() for t in (a, g, x, weight, scales)]
    expected = tile_reference.apply(*wide, None, "adaptive", 2.0) - LINEAR.layer(wide[2], wide[3])
    close(out, expected, torch.float16)


@pytest.mark.parametrize("t", [1, 130])
def test_products_beyond_fp16_do_not_overflow(t):
    a = x = torch.full((1, t, 64), 40.0).half()  # 40² · 64 > 65504
    g = torch.full((1, t, 3), 1e-4).half()
    out = triton_ghost.apply(a, g, x, torch.tensor([1e-3]), None, None, False)
    expected = 40.0**2 * 64 * t * float(g[0, 0, 0]) * 1e-3
    assert math.isclose(float(out[0, 0, 0]), expected, rel_tol=2e-3)


def test_every_operator_has_a_cuda_kernel():
    for name in ("tile_norm", "tile_apply", "ghost_norm", "ghost_apply", "cross_entropy", "flat_norm", "flat_step"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"saal_fast::{name}", "CUDA"), name
