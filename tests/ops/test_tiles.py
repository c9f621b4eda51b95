from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops import conv_tiles, tiles
from saal_fast.ops.elementwise import contribution, direction, native_map
from saal_fast.perturbation import L2, Adaptive, Lp

TOLERANCE = {torch.float32: {"rtol": 2e-4, "atol": 2e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
RULES = {"l2": ("l2", 2.0), "adaptive": ("adaptive", 2.0)} | {
    f"p={p}": ("lp", Lp(1.0, p).q) for p in (1.5, 2.0, 3.0, 20.0, math.inf)
}
ISAS = _native.core().usable_isas()
rules = st.sampled_from(sorted(RULES))
dtypes = st.sampled_from([torch.float32, torch.float64])


def drawn(*shape, dtype=torch.float32, seed=0, whole=False):
    """Normal numbers; small whole ones where a rule jumps at 0 (p = inf), so that a sum is 0 or isn't, with no rounding."""
    t = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (t.round() if whole else t).to(dtype)


def strided(t, how):
    """The same numbers, laid out otherwise: in order, last dimension outermost, or every other one of a larger tensor."""
    if how == "reversed":
        return t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim)))
    if how == "sparse":
        large = torch.full([2 * n for n in t.shape], math.nan, dtype=t.dtype)
        large[tuple(slice(None, None, 2) for _ in t.shape)] = t
        return large[tuple(slice(None, None, 2) for _ in t.shape)]
    return t


layouts = st.sampled_from(["in order", "reversed", "sparse"])


@st.composite
def linears(draw):
    """a, g, x, weight, scales of a linear layer."""
    sizes = st.one_of(st.integers(1, 5), st.sampled_from([8, 16, 17, 33, 70, 150]))
    n, t, other, d, o = draw(st.integers(0, 4)), draw(sizes), draw(sizes), draw(sizes), draw(sizes)
    dtype, layout = draw(dtypes), draw(layouts)
    shapes = (n, t, d), (n, t, o), (n, other, d), (o, d), (n,)
    return [strided(drawn(*s, dtype=dtype, seed=i, whole=True), layout) for i, s in enumerate(shapes)]


def output_size(size, kernel, stride, before, after, dilation):
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


@st.composite
def convolutions(draw):
    """(a, g, x, weight, scales) and (stride, padding, dilation, groups) of a 2-d convolution."""
    n, groups = draw(st.integers(0, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    channels, outputs = draw(st.sampled_from([1, 2, 3, 8, 16, 20])), draw(st.sampled_from([1, 2, 5, 16, 40]))
    kernel, stride, padding, dilation, sizes = [], [], [], [], {"a": [], "g": [], "x": []}
    for _ in range(2):
        k, s, dil = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        least = max(1, (k - 1) * dil + 1 - before - after)
        size, other = draw(st.integers(least, least + 5)), draw(st.integers(least, least + 3))
        for values, value in zip((kernel, stride, dilation), (k, s, dil), strict=True):
            values.append(value)
        padding += [before, after]
        sizes["a"].append(size)
        sizes["x"].append(other)
        sizes["g"].append(output_size(size, k, s, before, after, dil))
    dtype, layout = draw(dtypes), draw(layouts)
    shapes = [
        (n, channels * groups, *sizes["a"]),
        (n, outputs * groups, *sizes["g"]),
        (n, channels * groups, *sizes["x"]),
        (outputs * groups, channels, *kernel),
        (n,),
    ]
    tensors = [strided(drawn(*s, dtype=dtype, seed=i, whole=True), layout) for i, s in enumerate(shapes)]
    return tensors, (stride, padding, dilation, groups)


def close(actual, expected):
    scale = expected.abs().amax().clamp_min(1e-3) if expected.numel() else 1.0  # long sums: relative to the largest
    torch.testing.assert_close(actual / scale, expected / scale, **TOLERANCE[expected.dtype])


# ---- the references are what they are said to be


@pytest.mark.parametrize("name", RULES)
def test_maps_are_the_perturbation_rules(name):
    m, w = drawn(7, 5, dtype=torch.float64, whole=True), drawn(7, 5, dtype=torch.float64, seed=1)
    rule, q = RULES[name]
    expected = {"l2": L2(1.0), "adaptive": Adaptive(1.0)}.get(rule, Lp(1.0, math.inf if q == 1 else q / (q - 1)))
    torch.testing.assert_close(contribution(m, w, rule, q).sum(), expected.contribution(m, w))
    torch.testing.assert_close(direction(m, w, rule, q), expected.direction(m, w))


@settings(max_examples=40, deadline=None)
@given(case=convolutions(), name=rules)
def test_references_equal_autograd(case, name):
    (a, g, x, weight, scales), (stride, padding, dilation, groups) = case
    rule, q = RULES[name]
    top, bottom, left, right = padding

    def layer(images, w):
        images = torch.nn.functional.pad(images, (left, right, top, bottom))
        return torch.nn.functional.conv2d(images, w, None, stride, 0, dilation, groups)

    norms, outs = [], []
    for i in range(len(a)):
        w = weight.double().detach().requires_grad_()
        with torch.enable_grad():
            (m,) = torch.autograd.grad((layer(a[i : i + 1].double(), w) * g[i].double()).sum(), w)
        norms.append(contribution(m, weight.double(), rule, q).sum())
        outs.append(layer(x[i : i + 1].double(), scales[i] * direction(m, weight.double(), rule, q))[0])
    if norms:
        args = (stride, padding, dilation, groups, rule, q)
        norm = conv_tiles.reference_norm(a.double(), g.double(), weight.double(), *args)
        close(norm, torch.stack(norms).double())
        out = conv_tiles.reference_apply(*(t.double() for t in (a, g, x, weight, scales)), *args)
        close(out, torch.stack(outs).double())


# ---- the C++ twin equals the reference


@settings(max_examples=150, deadline=None)
@given(case=linears(), name=rules)
def test_linear_equals_the_reference(case, name):
    a, g, x, weight, scales = case
    rule = RULES[name]
    close(tiles.tile_norm(a, g, weight, *rule), tiles.reference_norm(a, g, weight, *rule))
    for whole in (False, True):
        args = (a, g, x, weight, scales, *rule, None, whole)
        close(tiles.tile_apply(*args), tiles.reference_apply(*args))


@settings(max_examples=150, deadline=None)
@given(case=convolutions(), name=rules)
def test_convolution_equals_the_reference(case, name):
    (a, g, x, weight, scales), layer = case
    rule = RULES[name]
    close(conv_tiles.conv_tile_norm(a, g, weight, *layer, *rule), conv_tiles.reference_norm(a, g, weight, *layer, *rule))
    for whole in (False, True):
        args = (a, g, x, weight, scales, *layer, *rule, whole)
        close(conv_tiles.conv_tile_apply(*args), conv_tiles.reference_apply(*args))


@pytest.mark.parametrize("layout", ["in order", "reversed", "sparse"])
@pytest.mark.parametrize("name", RULES)
def test_large_layers_equal_the_reference(name, layout):
    """Several blocks of strips, chunks of samples and panels, in numbers with all their digits."""
    rule = RULES[name]
    if name == "p=inf":
        pytest.skip("a sign may differ where a sum cancels to rounding error")
    shapes = (9, 24, 9, 7), (9, 70, 5, 4), (9, 24, 8, 7), (70, 24, 3, 3), (9,)
    a, g, x, weight, scales = (strided(drawn(*s, seed=i), layout) for i, s in enumerate(shapes))
    layer = ([2, 2], [1, 1, 1, 1], [1, 1], 1)
    close(conv_tiles.conv_tile_norm(a, g, weight, *layer, *rule), conv_tiles.reference_norm(a, g, weight, *layer, *rule))
    args = (a, g, x, weight, scales, *layer, *rule)
    close(conv_tiles.conv_tile_apply(*args), conv_tiles.reference_apply(*args))


# ---- every instruction set, and any number of threads


def native(case, layer, name, threads, isa, out_size):
    a, g, x, weight, scales = (t.contiguous().numpy() for t in case)
    stride, (top, _, left, _), dilation, groups = layer
    rule, q = RULES[name]
    geometry = (weight.shape[2:], stride, (top, left), dilation, groups, native_map(rule, q), q)
    norms = torch.from_numpy(_native.core().tile_norm(a, g, weight, *geometry, None, threads, isa))
    out = torch.full((len(a), len(weight), *out_size), math.nan, dtype=case[0].dtype)
    _native.core().tile_apply(a, g, x, weight, scales, out.numpy(), *geometry, False, threads, isa)
    return norms, out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_instruction_set_equals_the_reference(isa, name, dtype):
    for outputs, groups in [(70, 1), (9, 2), (20, 1)]:  # whole panels, half ones, and parts of both
        shapes = (3, 12 * groups, 6, 7), (3, outputs * groups, 6, 7), (3, 12 * groups, 5, 8)
        shapes += (outputs * groups, 12, 3, 3), (3,)
        case = [drawn(*s, dtype=dtype, seed=i, whole=True) for i, s in enumerate(shapes)]
        layer = ([1, 1], [1, 1, 1, 1], [1, 1], groups)
        a, g, _, weight, _ = case
        norms, out = native(case, layer, name, 1, isa, (5, 8))
        close(norms, conv_tiles.reference_norm(a, g, weight, *layer, *RULES[name]))
        close(out, conv_tiles.reference_apply(*case, *layer, *RULES[name]))


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_numbers_do_not_depend_on_threads(samples):
    shapes = (samples, 32, 9, 9), (samples, 200, 9, 9), (samples, 32, 9, 9), (200, 32, 3, 3), (samples,)
    case = [drawn(*s, seed=i) for i, s in enumerate(shapes)]
    layer = ([1, 1], [1, 1, 1, 1], [1, 1], 1)
    expected = native(case, layer, "adaptive", 1, "", (9, 9))
    for threads in (2, 3, 5):
        for actual, one in zip(native(case, layer, "adaptive", threads, "", (9, 9)), expected, strict=True):
            assert torch.equal(actual, one)


def test_an_unknown_instruction_set_is_refused():
    case = [drawn(*s) for s in ((1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 1, 1), (1,))]
    with pytest.raises(ValueError, match="expected an instruction set that is built and runs here, got 'mmx'"):
        native(case, ([1, 1], [0] * 4, [1, 1], 1), "l2", 1, "mmx", (2, 2))


@pytest.mark.parametrize("q", [1.001, 4 / 3, 1.5, 3.0, 101.0])
@pytest.mark.parametrize("isa", ISAS)
def test_powers_over_the_whole_range(q, isa):
    """The float32 power against float64's, from subnormal numbers to those whose power overflows; 0 and NaN."""
    a = torch.logspace(-44, 38, 500, dtype=torch.float64).float()
    a = torch.cat([a, torch.rand(500) + 0.5, torch.tensor([0.0, math.nan])])
    g = torch.ones(1, 1, 1, 1)
    zeros = torch.zeros(1, len(a), 1, 1)
    geometry = ((1, 1), (1, 1), (0, 0), (1, 1), 1, "power", q, None, 1, isa)
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


LINEAR = [drawn(*s, seed=i) for i, s in enumerate([(3, 4, 5), (3, 4, 6), (3, 2, 5), (6, 5), (3,)])]
CONV = [drawn(*s, seed=i) for i, s in enumerate([(3, 4, 6, 5), (3, 6, 3, 5), (3, 4, 6, 5), (6, 2, 3, 3), (3,)])]
LAYER = ([2, 1], [1, 1, 1, 1], [1, 1], 2)


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("name", RULES)
def test_opcheck(name, positions):
    a, g, x, weight, scales = LINEAR
    a, g = a[:, :positions], g[:, :positions]
    library.opcheck(tiles.tile_norm, (a, g, weight, *RULES[name]))
    library.opcheck(tiles.tile_apply, (a, g, x, weight, scales, *RULES[name], weight.square()))
    a, g, x, weight, scales = CONV
    library.opcheck(conv_tiles.conv_tile_norm, (a, g, weight, *LAYER, *RULES[name]))
    library.opcheck(conv_tiles.conv_tile_apply, (a, g, x, weight, scales, *LAYER, *RULES[name]))


def calls():
    """The operators as functions of their tensors."""
    rule = RULES["adaptive"]
    yield lambda a, g, x, w, s: tiles.tile_norm(a, g, w, *rule), LINEAR
    yield lambda a, g, x, w, s: tiles.tile_norm(a, g, w, *rule, w.square()), LINEAR
    yield lambda a, g, x, w, s: tiles.tile_apply(a, g, x, w, s, *rule), LINEAR
    yield lambda a, g, x, w, s: tiles.tile_apply(a, g, x, w, s, *rule, w.square()), LINEAR
    yield lambda a, g, x, w, s: conv_tiles.conv_tile_norm(a, g, w, *LAYER, *rule), CONV
    yield lambda a, g, x, w, s: conv_tiles.conv_tile_apply(a, g, x, w, s, *LAYER, *rule), CONV
    yield lambda a, g, x, w, s: conv_tiles.conv_tile_apply(a, g, x, w, s, *LAYER, *rule, True), CONV


@pytest.mark.parametrize(("call", "tensors"), list(calls()))
def test_one_sample_at_a_time_under_vmap_equals_the_batch(call, tensors):
    a, g, x, weight, scales = tensors

    def one(a, g, x, s):
        return call(a[None], g[None], x[None], weight, s[None])[0]

    close(vmap(one)(a, g, x, scales), call(*tensors))


@pytest.mark.parametrize(
    "dims", [(0, 0, 0, None, 0), (0, None, 0, None, None), (1, 0, 2, None, 1), (0, 0, 0, 0, 0), (None,) * 3 + (1, None)]
)
@pytest.mark.parametrize(("call", "tensors"), list(calls()))
def test_vmap_over_any_arguments_equals_a_loop(call, tensors, dims):
    batched = []
    for i, (t, dim) in enumerate(zip(tensors, dims, strict=True)):
        copies = torch.stack([t + 0.1 * drawn(*t.shape, seed=10 * i + k) for k in range(2)])
        batched.append(t if dim is None else copies.movedim(0, min(dim, t.ndim)))
    dims = tuple(None if d is None else min(d, t.ndim) for d, t in zip(dims, tensors, strict=True))
    rows = [[t if d is None else t.select(d, k) for t, d in zip(batched, dims, strict=True)] for k in range(2)]
    close(vmap(call, in_dims=dims)(*batched), torch.stack([call(*row) for row in rows]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_numbers_are_computed_in_float32(dtype):
    a, g, x, weight, scales = (t.to(dtype) for t in LINEAR)
    wide = [t.float() for t in (a, g, x, weight, scales)]
    norms = tiles.tile_norm(a, g, weight, *RULES["adaptive"])
    out = tiles.tile_apply(a, g, x, weight, scales, *RULES["adaptive"])
    assert norms.dtype == torch.float32
    assert out.dtype == dtype
    close(norms, tiles.tile_norm(wide[0], wide[1], wide[3], *RULES["adaptive"]))
    assert torch.equal(out, tiles.tile_apply(*wide, *RULES["adaptive"]).to(dtype))


@pytest.mark.parametrize("position", range(5))
def test_shapes_that_do_not_fit_are_told(position):
    for tensors, layer in ((LINEAR, ()), (CONV, LAYER)):
        norm, apply = (
            (conv_tiles.conv_tile_norm, conv_tiles.conv_tile_apply) if layer else (tiles.tile_norm, tiles.tile_apply)
        )
        broken = [t[..., :-1] if i == position else t for i, t in enumerate(tensors)]
        if layer and position == 2:
            broken[2] = broken[2][:, :-1]  # another size is x's right
        with pytest.raises(ValueError, match=r"expected a \[N, .* got a \("):
            apply(*broken, *layer, *RULES["l2"])
        if position in (0, 1, 3):
            with pytest.raises(ValueError, match=r"expected a \[N, .* got a \("):
                norm(broken[0], broken[1], broken[3], *layer, *RULES["l2"])


def test_bad_arguments_are_told():
    a, g, x, weight, scales = LINEAR
    with pytest.raises(ValueError, match="expected rule to be one of l2, lp, adaptive, got 'l1'"):
        tiles.tile_norm(a, g, weight, "l1", 1.0)
    with pytest.raises(ValueError, match=r"expected q > 0, finite, got q=inf"):
        tiles.tile_apply(a, g, x, weight, scales, "lp", math.inf)
    with pytest.raises(TypeError, match=r"expected tensors of floating-point numbers, got torch\.int64"):
        tiles.tile_norm(a.long(), g, weight, "l2", 2.0)
    a, g, _, weight, _ = CONV
    with pytest.raises(ValueError, match="expected two strides and dilations > 0"):
        conv_tiles.conv_tile_norm(a, g, weight, [0, 1], [1] * 4, [1, 1], 2, "l2", 2.0)
