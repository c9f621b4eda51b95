from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.engines.layers.conv import Conv
from saal_fast.ops.diagonal_sums import diagonal_sums, reference

TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}


@st.composite
def windows(draw, max_dims=3):
    """Arguments of the op after `pixels`; every dimension has at least one output position."""
    dims = draw(st.integers(1, max_dims))
    each = {"space": [], "kernel": [], "before": [], "after": [], "dilation": []}
    for _ in range(dims):
        dilation, kernel = draw(st.integers(1, 2)), draw(st.integers(1, 3))
        before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        least = max(1, (kernel - 1) * dilation + 1 - before - after)
        values = (draw(st.integers(least, least + 3)), kernel, before, after, dilation)
        for name, value in zip(each, values, strict=True):
            each[name].append(value)
    return list(each.values())


def pixels_for(space, batch, dtype):
    size = torch.Size(space).numel()
    return torch.randn(batch, size, size, dtype=dtype, generator=torch.Generator().manual_seed(size))


@settings(max_examples=60, deadline=None)
@given(window=windows(), batch=st.integers(0, 3), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_cpp_equals_the_reference(window, batch, dtype):
    pixels = pixels_for(window[0], batch, dtype)
    torch.testing.assert_close(diagonal_sums(pixels, *window), reference.diagonal_sums(pixels, *window), **TOLERANCE[dtype])


@settings(max_examples=40, deadline=None)
@given(window=windows(), channels=st.integers(1, 3))
def test_is_the_gram_matrix_of_patches(window, channels):
    space, kernel, before, after, dilation = window
    layer = Conv(tuple(kernel), (1,) * len(space), tuple(zip(before, after, strict=True)), tuple(dilation), 1)
    a, x = torch.randn(2, 1, channels, *space, dtype=torch.float64)
    pixels = a.flatten(2)[0].mT @ x.flatten(2)[0]
    patches = layer.unfold_input(a)[0].mT @ layer.unfold_input(x)[0]
    torch.testing.assert_close(diagonal_sums(pixels[None], *window)[0], patches, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(isa, threads):
    pixels, window = pixels_for([17, 18], 4, torch.float32), ([17, 18], [3, 3], [1, 1], [1, 1], [1, 1])
    out = torch.full_like(pixels, torch.nan)
    args = (4, (17, 18, 17, 18), (3, 3), (1, 1), (1, 1))
    _native.core().diagonal_sums_f32(pixels.data_ptr(), out.data_ptr(), *args, threads, isa)
    assert torch.equal(out, diagonal_sums(pixels, *window))


def test_vmap_equals_a_loop():
    window = ([3, 4], [3, 2], [1, 0], [1, 1], [1, 1])
    pixels = torch.randn(2, 5, 12, 12, dtype=torch.float64)
    out = vmap(lambda p: diagonal_sums(p, *window), in_dims=1)(pixels)
    expected = torch.stack([diagonal_sums(p, *window) for p in pixels.unbind(1)])
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_strided_input():
    pixels = torch.randn(2, 9, 9, dtype=torch.float64).mT
    window = ([3, 3], [2, 2], [0, 1], [1, 0], [1, 1])
    torch.testing.assert_close(diagonal_sums(pixels, *window), reference.diagonal_sums(pixels, *window))


def test_opcheck():
    library.opcheck(diagonal_sums, (torch.randn(2, 6, 6), [2, 3], [3, 3], [1, 1], [1, 1], [1, 1]))
