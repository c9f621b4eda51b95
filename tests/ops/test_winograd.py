"""Convolutions by minimal filtering against plain ones."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vjp, vmap

from saal_fast import _native
from saal_fast.ops import winograd
from saal_fast.ops.winograd import reference

PADDINGS = st.lists(st.integers(0, 2), min_size=4, max_size=4)


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(got, expected):
    """To a few roundings of the largest numbers that are summed."""
    digits = 1e-5 if got.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(got, expected.to(got.dtype), rtol=digits, atol=digits * float(expected.abs().max() + 1))


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 40),
    channels=st.tuples(*[st.sampled_from([1, 8, 16, 32, 48, 80])] * 2),
    size=st.tuples(st.integers(3, 19), st.integers(3, 19)),
    padding=PADDINGS,
    backward=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    last=st.booleans(),
)
def test_equals_the_reference(n, channels, size, padding, backward, dtype, last):
    inputs, outputs = channels
    x = drawn(n, outputs if backward else inputs, *size, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weight = drawn(outputs, inputs, 3, 3, dtype=dtype, seed=1)
    close(winograd.conv(x, weight, padding, backward), reference.conv(x.double(), weight.double(), padding, backward))


def test_is_as_near_to_the_exact_result_as_a_plain_convolution():
    x, weight = drawn(16, 128, 16, 16), drawn(128, 128, 3, 3, seed=1)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error, plain = ((out - exact).abs().max() for out in (winograd.conv(x, weight, [1] * 4), F.conv2d(x, weight, padding=1)))
    assert error < 4 * plain


def test_the_compiled_kernel_is_what_runs(monkeypatch):
    """Else the tests above would compare the reference to itself."""
    x, weight = drawn(2, 16, 16, 16), drawn(32, 16, 3, 3)
    assert winograd.is_faster(x, weight)
    monkeypatch.setattr(reference, "conv", None)
    assert winograd.conv(x, weight, [1] * 4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_and_any_threads(isa, dtype):
    x, weight = drawn(5, 48, 9, 7, dtype=dtype), drawn(80, 48, 3, 3, dtype=dtype, seed=1)
    last = x.contiguous(memory_format=torch.channels_last)
    outs = []
    for threads in (1, 2, 3):
        out = torch.empty((5, 80, 9, 7), dtype=dtype, memory_format=torch.channels_last)
        _native.core().winograd_conv(last.numpy(), weight.numpy(), out.numpy(), (1, 1), False, threads, isa)
        outs.append(out)
    close(outs[0], F.conv2d(x.double(), weight.double(), padding=1))
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_vmapped_gradients_are_those_of_a_plain_convolution():
    x, weight, g = drawn(6, 1, 16, 12, 10), drawn(32, 16, 3, 3, seed=1), drawn(6, 1, 32, 11, 11, seed=2)
    padding = [0, 1, 2, 1]

    def back(conv):
        return vmap(lambda x, g: vjp(lambda t: conv(t.sin(), weight, padding), x)[1](g)[0])(x, g)

    close(back(winograd.differentiable_conv), back(reference.conv))


def test_gradients_twice():
    x = drawn(1, 16, 16, 16, dtype=torch.float64).requires_grad_()
    weight = drawn(16, 16, 3, 3, dtype=torch.float64, seed=1)
    assert torch.autograd.gradcheck(lambda t: winograd.differentiable_conv(t, weight, [1] * 4), x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda t: winograd.differentiable_conv(t, weight, [1] * 4), x, fast_mode=True)


@pytest.mark.parametrize("backward", [False, True])
def test_opcheck(backward):
    library.opcheck(winograd.conv, (drawn(2, 16, 16, 16), drawn(16, 16, 3, 3), [1, 1, 1, 1], backward))


def test_a_weight_of_its_own_for_each_sample_under_vmap():
    x, weight = drawn(3, 1, 16, 16, 16), drawn(3, 16, 16, 3, 3, seed=1)
    out = vmap(lambda x, w: winograd.conv(x, w, [1] * 4))(x, weight)
    close(out, torch.stack([F.conv2d(a, w, padding=1) for a, w in zip(x, weight, strict=True)]))


@pytest.mark.parametrize(
    ("x", "weight", "padding", "backward"),
    [
        ((2, 3, 8, 8), (4, 3, 5, 5), [1] * 4, False),
        ((2, 3, 8, 8), (4, 2, 3, 3), [1] * 4, False),
        ((2, 3, 8, 8), (4, 3, 3, 3), [1] * 4, True),
        ((2, 3, 8, 8), (4, 3, 3, 3), [1, 1], False),
        ((2, 3, 1, 8), (4, 3, 3, 3), [0] * 4, False),
        ((3, 8, 8), (4, 3, 3, 3), [0] * 4, False),
    ],
)
def test_bad_arguments(x, weight, padding, backward):
    with pytest.raises(ValueError, match=r"expected x \[N, C, H, W\], weight \[O, C, 3, 3\]"):
        winograd.conv(torch.zeros(x), torch.zeros(weight), padding, backward)


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((16, 16, 3, 3), True),
        ((48, 80, 3, 3), True),
        ((8, 16, 3, 3), False),
        ((16, 24, 3, 3), False),
        ((0, 16, 3, 3), False),
        ((16, 16, 1, 3), False),
        ((16, 16, 3), False),
    ],
)
def test_which_layers_the_kernel_knows(shape, known):
    assert winograd.supports(torch.zeros(shape)) is known
    if len(shape) == 4 and shape[2:] == (3, 3):  # those that the core takes
        x, out = (torch.zeros(1, c, 8, 8).contiguous(memory_format=torch.channels_last) for c in (shape[1], shape[0]))
        arguments = x.numpy(), torch.zeros(shape).numpy(), out.numpy(), (1, 1)
        with contextlib.nullcontext() if known else pytest.raises(ValueError, match="channel"):
            _native.core().winograd_conv(*arguments)


def test_no_images():
    assert winograd.conv(torch.zeros(0, 16, 8, 8), torch.zeros(32, 16, 3, 3), [1] * 4).shape == (0, 32, 8, 8)
