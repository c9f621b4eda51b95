from __future__ import annotations

import math

import pytest
import torch
from drawn import FEW_RULES, LARGE, LAYOUTS, RULES, close, convs, laid_out, layer_of, linears, wide_dtypes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops.common.elementwise import contribution, direction, native_map
from saal_fast.ops.common.window import Window
from saal_fast.ops.tiles import reference, tile_apply, tile_norm
from saal_fast.perturbation import L2, Adaptive, Lp

ISAS = _native.core().usable_isas()
WINDOW = [3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 2]
LINEAR = layer_of([(3, 4, 5), (3, 4, 6), (3, 2, 5), (6, 5)], None)
CONV = layer_of([(3, 4, 6, 5), (3, 6, 3, 5), (3, 4, 6, 5), (6, 2, 3, 3)], WINDOW)
ADAPTIVE = ("adaptive", 2.0)
rules = st.sampled_from(RULES)
layers = st.one_of(linears(wide_dtypes, LARGE), convs(wide_dtypes, (1, 2, 3, 8, 16, 20), (1, 2, 5, 16, 40)))


def norm(drawn, rule, of=tile_norm):
    return of(drawn.a, drawn.g, drawn.weight, drawn.window, *rule)


def apply(drawn, rule, of=tile_apply):
    return of(*drawn[:5], drawn.window, *rule)


# ---- the references are what they are said to be


@pytest.mark.parametrize(("rule", "q"), RULES)
def test_maps_are_the_perturbation_rules(rule, q):
    m, w = torch.randn(7, 5, dtype=torch.float64).round(), torch.randn(7, 5, dtype=torch.float64)
    expected = {"l2": L2(1.0), "adaptive": Adaptive(1.0)}.get(rule, Lp(1.0, math.inf if q == 1 else q / (q - 1)))
    torch.testing.assert_close(contribution(m, w, rule, q).sum(), expected.contribution(m, w))
    torch.testing.assert_close(direction(m, w, rule, q), expected.direction(m, w))


@settings(max_examples=60, deadline=None)
@given(drawn=layers, rule=rules)
def test_references_equal_autograd(drawn, rule):
    drawn = drawn.exact().double()
    norms, outs = torch.zeros(len(drawn.a)).double(), torch.zeros_like(drawn.base)
    for i, (m, _) in enumerate(drawn.gradients()):
        norms[i] = contribution(m, drawn.weight, *rule).sum()
        outs[i] = drawn.layer(drawn.x[i][None], drawn.weight + drawn.scales[i] * direction(m, drawn.weight, *rule))[0]
    close(norm(drawn, rule, reference.norm), norms, size=1e-3)
    close(apply(drawn, rule, reference.apply), outs, size=1e-3)


# ---- the C++ kernel equals the reference


@settings(max_examples=300, deadline=None)
@given(drawn=layers, rule=rules)
def test_equals_the_reference(drawn, rule):
    drawn = drawn.exact()
    close(norm(drawn, rule), norm(drawn, rule, reference.norm), size=1e-3)
    close(apply(drawn, rule), apply(drawn, rule, reference.apply), size=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != ("lp", 1.0)])  # a sign may differ where a sum cancels
def test_large_layers_equal_the_reference(rule, layout):
    """Several blocks of strips, chunks of samples and panels, in numbers with all their digits."""
    shapes = (9, 24, 9, 7), (9, 70, 5, 4), (9, 24, 8, 7), (70, 24, 3, 3)
    drawn = layer_of(shapes, [3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1])
    drawn = drawn._replace(**{name: laid_out(getattr(drawn, name), layout) for name in ("a", "g", "x", "weight")})
    close(norm(drawn, rule), norm(drawn, rule, reference.norm), size=1e-3)
    close(apply(drawn, rule), apply(drawn, rule, reference.apply), size=1e-3)


# ---- every instruction set, and any number of threads


def native(drawn, rule, threads, isa):
    a, g, x, weight, scales = (t.contiguous().numpy() for t in drawn[:5])
    geometry = (Window.of(drawn.window).for_core(), native_map(*rule), rule[1])
    norms = torch.from_numpy(_native.core().tile_norm(a, g, weight, *geometry, None, threads, isa))
    out = torch.full_like(drawn.base, math.nan)
    _native.core().tile_apply(a, g, x, weight, scales, out.numpy(), *geometry, threads, isa)
    return norms, out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set_equals_the_reference(isa, rule, dtype):
    for outputs, groups in [(70, 1), (9, 2), (20, 1)]:  # whole panels, half ones, and parts of both
        shapes = (3, 12 * groups, 6, 7), (3, outputs * groups, 6, 7), (3, 12 * groups, 5, 8), (outputs * groups, 12, 3, 3)
        drawn = layer_of(shapes, [3, 3, 1, 1, 1, 1, 1, 1, 1, 1, groups], dtype=dtype).exact()
        norms, out = native(drawn, rule, 1, isa)
        close(norms, norm(drawn, rule, reference.norm), size=1e-3)
        close(out, apply(drawn, rule, reference.apply), size=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_numbers_do_not_depend_on_threads(samples):
    shapes = (samples, 32, 9, 9), (samples, 200, 9, 9), (samples, 32, 9, 9), (200, 32, 3, 3)
    drawn = layer_of(shapes, [3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    expected = native(drawn, ADAPTIVE, 1, "")
    for threads in (2, 3, 5):
        for actual, one in zip(native(drawn, ADAPTIVE, threads, ""), expected, strict=True):
            assert torch.equal(actual, one)


def test_an_unknown_instruction_set_is_refused():
    drawn = layer_of([(1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 1, 1)], Window().to_list())
    with pytest.raises(ValueError, match="expected an instruction set that is built and runs here, got 'mmx'"):
        native(drawn, ("l2", 2.0), 1, "mmx")


@pytest.mark.parametrize("q", [1.001, 4 / 3, 1.5, 3.0, 101.0])
@pytest.mark.parametrize("isa", ISAS)
def test_powers_over_the_whole_range(q, isa):
    """The float32 power against float64's, from subnormal numbers to those whose power overflows; 0 and NaN."""
    a = torch.logspace(-44, 38, 500, dtype=torch.float64).float()
    a = torch.cat([a, torch.rand(500) + 0.5, torch.tensor([0.0, math.nan])])
    g = torch.ones(1, 1, 1, 1)
    zeros = torch.zeros(1, len(a), 1, 1)
    geometry = (Window().for_core(), "power", q, None, 1, isa)
    # each input alone in its sample: N = len(a) samples of one channel
    norms = torch.from_numpy(
        _native.core().tile_norm(
            a.reshape(-1, 1, 1, 1).numpy(), g.expand(len(a), 1, 1, 1).numpy(), zeros[:, :1].numpy(), *geometry
        )
    )
    expected = a.double().pow(q)
    fits = (expected < 3e38) & (expected > 1.2e-38)
    torch.testing.assert_close(norms[fits].double(), expected[fits], rtol=2e-6 * max(q, 1), atol=0)
    assert (norms[expected <= 1e-38] <= 1.3e-38).all()
    assert (norms[expected > 3.5e38] > 3e38).all()
    assert norms[-1].isnan()


# ---- the operators in torch


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("rule", FEW_RULES)
def test_opcheck(rule, positions):
    linear = LINEAR._replace(a=LINEAR.a[:, :positions], g=LINEAR.g[:, :positions])
    for drawn in (linear, CONV):
        library.opcheck(tile_norm, (drawn.a, drawn.g, drawn.weight, drawn.window, *rule))
        library.opcheck(tile_apply, (*drawn[:5], drawn.window, *rule))


def calls():
    """The operators as functions of their tensors."""
    for drawn in (LINEAR, LINEAR._replace(a=LINEAR.a[:, :1], g=LINEAR.g[:, :1]), CONV):
        yield lambda a, g, x, w, s, window=drawn.window: tile_norm(a, g, w, window, *ADAPTIVE), drawn[:5]
        yield lambda *t, window=drawn.window: tile_apply(*t, window, *ADAPTIVE), drawn[:5]


@pytest.mark.parametrize(("call", "tensors"), list(calls()))
def test_one_sample_at_a_time_under_vmap_equals_the_batch(call, tensors):
    a, g, x, weight, scales = tensors

    def one(a, g, x, s):
        return call(a[None], g[None], x[None], weight, s[None])[0]

    close(vmap(one)(a, g, x, scales), call(*tensors), size=1e-3)


@pytest.mark.parametrize(
    "dims", [(0, 0, 0, None, 0), (0, None, 0, None, None), (1, 0, 2, None, 1), (0, 0, 0, 0, 0), (None,) * 3 + (1, None)]
)
@pytest.mark.parametrize(("call", "tensors"), list(calls()))
def test_vmap_over_any_arguments_equals_a_loop(call, tensors, dims):
    batched = []
    for t, dim in zip(tensors, dims, strict=True):
        copies = torch.stack([t + 0.1 * torch.randn(t.shape) for _ in range(2)])
        batched.append(t if dim is None else copies.movedim(0, min(dim, t.ndim)))
    dims = tuple(None if d is None else min(d, t.ndim) for d, t in zip(dims, tensors, strict=True))
    rows = [[t if d is None else t.select(d, k) for t, d in zip(batched, dims, strict=True)] for k in range(2)]
    close(vmap(call, in_dims=dims)(*batched), torch.stack([call(*row) for row in rows]), size=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_numbers_are_computed_in_float32(dtype):
    narrow = LINEAR.to(dtype)
    wide = narrow.to(torch.float32)
    norms, out = norm(narrow, ADAPTIVE), apply(narrow, ADAPTIVE)
    assert norms.dtype == torch.float32
    assert out.dtype == dtype
    close(norms, norm(wide, ADAPTIVE), size=1e-3)
    assert torch.equal(out, apply(wide, ADAPTIVE).to(dtype))


@pytest.mark.parametrize("position", range(5))
def test_shapes_that_do_not_fit_are_told(position):
    for drawn in (LINEAR, CONV):
        broken = [t[..., :-1] if i == position else t for i, t in enumerate(drawn[:5])]
        if drawn.window and position == 2:
            broken[2] = broken[2][:, :-1]  # another size is x's right
        with pytest.raises(ValueError, match=r"expected a \[N, .* got a \["):
            tile_apply(*broken, drawn.window, "l2", 2.0)
        if position in (0, 1, 3):
            with pytest.raises(ValueError, match=r"expected a \[N, .* got a \["):
                tile_norm(broken[0], broken[1], broken[3], drawn.window, "l2", 2.0)


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match="expected rule to be one of l2, lp, adaptive, got 'l1'"):
        norm(LINEAR, ("l1", 1.0))
    with pytest.raises(ValueError, match=r"expected q > 0, finite, got q=inf"):
        apply(LINEAR, ("lp", math.inf))
    with pytest.raises(TypeError, match=r"expected tensors of floating-point numbers, got torch\.int64"):
        norm(LINEAR._replace(a=LINEAR.a.long()), ("l2", 2.0))
    with pytest.raises(ValueError, match="expected a window of 11 whole numbers"):
        norm(CONV._replace(window=[3, 3, 0, *WINDOW[3:]]), ("l2", 2.0))
