"""Gradients that are formed once and kept: the C++ twin against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from test_tiles import CONV, LAYER, RULES, close, convolutions, drawn, rules, strided
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops import conv_tiles, held

A, G, X, WEIGHT, SCALES = CONV


def both(a, g, x, weight, scales, *layer):
    norms, kept = held.hold(a, g, weight, *layer)
    return norms, held.held_apply(kept, x, weight, scales, *layer)


@settings(max_examples=150, deadline=None)
@given(case=convolutions(), name=rules)
def test_equals_the_reference(case, name):
    (a, g, x, weight, scales), layer = case
    norms, out = both(a, g, x, weight, scales, *layer, *RULES[name])
    expected, kept = held.reference_hold(a, g, weight, *layer, *RULES[name])
    close(norms, expected)
    close(out, held.reference_apply(kept, x, weight, scales, *layer, *RULES[name]))
    assert kept.shape[1] == held.held_size(weight, layer[-1])


@pytest.mark.parametrize("layout", ["in order", "channels last", "sparse"])
@pytest.mark.parametrize("name", [name for name in RULES if name != "p=inf"])  # a sign may differ where a sum nearly cancels
def test_large_layers_equal_the_reference(name, layout):
    """Several blocks of strips and panels, the last of them half; the output is laid out as the input."""
    shapes = (3, 24, 19, 17), (3, 70, 19, 17), (3, 24, 18, 17), (70, 24, 3, 3), (3,)
    a, g, x, weight, scales = (drawn(*s, seed=i) for i, s in enumerate(shapes))
    if layout == "channels last":
        a, g, x = (t.contiguous(memory_format=torch.channels_last) for t in (a, g, x))
    else:
        a, g, x = (strided(t, layout) for t in (a, g, x))
    layer = ([1, 1], [1, 1, 1, 1], [1, 1], 1, *RULES[name])
    norms, out = both(a, g, x, weight, scales, *layer)
    expected, kept = held.reference_hold(a, g, weight, *layer)
    close(norms, expected)
    close(out, held.reference_apply(kept, x, weight, scales, *layer))
    assert out.is_contiguous(memory_format=torch.channels_last) == (layout == "channels last")


@pytest.mark.parametrize("name", RULES)
def test_is_the_layer_with_the_moved_weight_as_tiles_have_it(name):
    close(both(*CONV, *LAYER, *RULES[name])[1], conv_tiles.conv_tile_apply(*CONV, *LAYER, *RULES[name], True))


def test_without_a_step_it_is_the_layer_itself():
    stride, (top, _, left, _), dilation, groups = LAYER
    plain = torch.nn.functional.conv2d(X, WEIGHT, None, stride, (top, left), dilation, groups)
    close(both(A, G, X, WEIGHT, torch.zeros(3), *LAYER, *RULES["l2"])[1], plain)


@pytest.mark.parametrize("name", RULES)
def test_opcheck(name):
    layer = (*LAYER, *RULES[name])
    library.opcheck(held.hold, (A, G, WEIGHT, *layer))
    library.opcheck(held.held_apply, (held.hold(A, G, WEIGHT, *layer)[1], X, WEIGHT, SCALES, *layer))


@pytest.mark.parametrize("weights", [None, 0])
def test_one_sample_at_a_time_under_vmap_equals_the_batch(weights):
    layer = (*LAYER, *RULES["adaptive"])

    def one(a, g, x, weight, s):
        norms, out = both(a[None], g[None], x[None], weight, s[None], *layer)
        return norms[0], out[0]

    weight = WEIGHT if weights is None else torch.stack([WEIGHT, 2 * WEIGHT, 3 * WEIGHT])
    norms, out = vmap(one, in_dims=(0, 0, 0, weights, 0))(A, G, X, weight, SCALES)
    for i in range(len(A)):
        mine = WEIGHT if weights is None else weight[i]
        for got, want in zip((norms[i], out[i]), one(A[i], G[i], X[i], mine, SCALES[i]), strict=True):
            close(got, want)


def test_empty_batches():
    norms, out = both(A[:0], G[:0], X[:0], WEIGHT, SCALES[:0], *LAYER, *RULES["l2"])
    assert norms.shape == (0,)
    assert out.shape == (0, *conv_tiles.reference_apply(*CONV, *LAYER, *RULES["l2"]).shape[1:])


def test_bad_arguments():
    layer = (*LAYER, *RULES["l2"])
    with pytest.raises(ValueError, match=r"expected a \[N, C, H, W\]"):
        held.hold(A[:2], G, WEIGHT, *layer)
    with pytest.raises(ValueError, match=r"expected held of \d+ contiguous numbers, got"):
        held.held_apply(torch.zeros(3, 8), X, WEIGHT, SCALES, *layer)
    with pytest.raises(ValueError, match=r"expected a scale for each sample"):
        held.held_apply(held.hold(A, G, WEIGHT, *layer)[1], X, WEIGHT, SCALES[:2], *layer)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
def test_every_instruction_set_and_any_threads(isa):
    stride, (top, _, left, _), dilation, groups = LAYER
    geometry = (WEIGHT.shape[2:], stride, (top, left), dilation, groups, "adaptive", 2.0)
    arrays = [t.numpy() for t in (A, G, WEIGHT)]
    kept = torch.full((3, held.held_size(WEIGHT, groups)), math.nan)
    norms = _native.core().tile_norm(*arrays, *geometry, kept.numpy(), 2, isa)
    expected, mine = held.reference_hold(A, G, WEIGHT, *LAYER, *RULES["adaptive"])
    close(torch.from_numpy(norms), expected)
    want = held.reference_apply(mine, X, WEIGHT, SCALES, *LAYER, *RULES["adaptive"])
    for threads in (1, 2, 3):
        out = torch.full_like(want, math.nan)
        moved = (X.numpy(), WEIGHT.numpy(), SCALES.numpy(), out.numpy())
        _native.core().held_apply(kept.numpy(), *moved, *geometry, True, threads, isa)
        close(out, want)
