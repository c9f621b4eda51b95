"""Depthwise convolutions with a weight of each sample's own, and the weights' gradients, against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drawn import LAYOUTS, laid_out
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops import depthwise
from saal_fast.ops.common.window import Window
from saal_fast.ops.depthwise import cpu, reference

TOLERANCE = {torch.float64: {"rtol": 1e-11, "atol": 1e-11}, torch.float32: {"rtol": 1e-4, "atol": 1e-4}}


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@st.composite
def layers(draw):
    """Images, weights and a window; kernels wider than the images too."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    n, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 8, 20, 33]))
    kernel, stride, dilation = pair(1, 7), pair(1, 3), pair(1, 2)
    padding = tuple(draw(st.integers(0, 4)) for _ in range(4))
    least = [
        (k - 1) * d + 1 - before - after
        for k, d, before, after in zip(kernel, dilation, padding[::2], padding[1::2], strict=True)
    ]
    size = [max(1, low) + draw(st.integers(0, 6)) for low in least]
    x = laid_out(drawn(n, channels, *size), draw(st.sampled_from(LAYOUTS)))
    weight = laid_out(drawn(n, channels, *kernel, seed=1), draw(st.sampled_from(LAYOUTS)))
    return x, weight, Window(kernel, stride, padding, dilation, channels)


@settings(max_examples=150, deadline=None)
@given(layers(), st.sampled_from([cpu, reference, None]), st.sampled_from([torch.float64, torch.float32]))
def test_equals_torch(drawn_layer, of, dtype):
    x, weight, window = drawn_layer
    run = (depthwise.depthwise_apply, depthwise.depthwise_gradient) if of is None else (of.apply, of.gradient)
    own = weight.clone().requires_grad_()
    want = torch.cat(
        [
            F.conv2d(window.pad(x[i : i + 1]), own[i][:, None], None, window.stride, 0, window.dilation, len(own[i]))
            for i in range(len(x))
        ]
    )
    out = run[0](x.to(dtype), weight.to(dtype), window.to_list())
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), want, **TOLERANCE[dtype])
    g = drawn(*want.shape, seed=2)
    (gradient,) = torch.autograd.grad(want, own, g)
    made = run[1](x.to(dtype), g.to(dtype), window.to_list())
    torch.testing.assert_close(made.double(), gradient, **TOLERANCE[dtype])


WINDOW = Window((3, 5), (2, 1), (1, 0, 2, 1), (1, 1), 19)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_and_any_threads(isa, dtype):
    core, arguments = _native.core(), WINDOW.for_core()[1:4]
    x, weight = drawn(5, 9, 7, 19, dtype=dtype), drawn(5, 3, 5, 19, dtype=dtype, seed=1)
    size = WINDOW.output_size(9, 7)
    g = drawn(5, *size, 19, dtype=dtype, seed=2)
    outs = []
    for threads in (1, 2, 3):
        out, sums = torch.empty_like(g), torch.empty_like(weight)
        core.depthwise_apply(x.numpy(), weight.numpy(), out.numpy(), *arguments, threads, isa)
        core.depthwise_gradient(x.numpy(), g.numpy(), sums.numpy(), *arguments, threads, isa)
        outs.append((out, sums))
    assert all(torch.equal(a, b) for other in outs[1:] for a, b in zip(outs[0], other, strict=True))
    images, numbers = [t.double().permute(0, 3, 1, 2) for t in (x, g)], WINDOW.to_list()
    want = reference.apply(images[0], weight.double().permute(0, 3, 1, 2), numbers)
    torch.testing.assert_close(outs[0][0].double().permute(0, 3, 1, 2), want, **TOLERANCE[dtype])
    want = reference.gradient(*images, numbers)
    torch.testing.assert_close(outs[0][1].double().permute(0, 3, 1, 2), want, **TOLERANCE[dtype])


def test_the_compiled_kernels_are_what_runs(monkeypatch):
    x, weight = drawn(2, 19, 9, 7), drawn(2, 19, 3, 5)
    monkeypatch.setattr(reference, "apply", None)
    monkeypatch.setattr(reference, "gradient", None)
    out = depthwise.depthwise_apply(x, weight, WINDOW.to_list())
    depthwise.depthwise_gradient(x, out, WINDOW.to_list())
    last = x.contiguous(memory_format=torch.channels_last)
    assert depthwise.depthwise_apply(last, weight, WINDOW.to_list()).is_contiguous(memory_format=torch.channels_last)


def test_vmap_equals_a_loop():
    x, weight, numbers = drawn(4, 1, 19, 9, 7), drawn(1, 19, 3, 5), WINDOW.to_list()
    made = vmap(lambda x: depthwise.depthwise_apply(x, weight, numbers))(x)
    torch.testing.assert_close(made, torch.stack([depthwise.depthwise_apply(each, weight, numbers) for each in x]))
    sums = vmap(lambda x, g: depthwise.depthwise_gradient(x, g, numbers))(x, made)
    torch.testing.assert_close(
        sums, torch.stack([depthwise.depthwise_gradient(*each, numbers) for each in zip(x, made, strict=True)])
    )


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_opcheck(order):
    x, weight = drawn(2, 19, 9, 7).contiguous(memory_format=order), drawn(2, 19, 3, 5)
    library.opcheck(depthwise.depthwise_apply, (x, weight, WINDOW.to_list()))
    g = reference.apply(x, weight, WINDOW.to_list())
    library.opcheck(depthwise.depthwise_gradient, (x, g, WINDOW.to_list()))


def test_what_does_not_fit_is_told():
    x, weight = drawn(2, 19, 9, 7), drawn(2, 18, 3, 5)
    with pytest.raises(
        ValueError, match=r"expected images \[N, C, H, W\].*got images \[2, 19, 9, 7\], weight \[2, 18, 3, 5\]"
    ):
        depthwise.depthwise_apply(x, weight, WINDOW.to_list())
    with pytest.raises(ValueError, match=r"g \[2, 19, 9, 7\]"):
        depthwise.depthwise_gradient(x, x, WINDOW.to_list())
    narrow = [t.numpy() for t in (drawn(1, 4, 4, 8), drawn(1, 1, 6, 8), drawn(1, 4, 4, 8))]
    with pytest.raises(ValueError, match="kernel of width"):
        _native.core().depthwise_apply(*narrow, (1, 1), (0, 0), (1, 1))
    wrong = [t.numpy() for t in (drawn(1, 4, 4, 8), drawn(1, 3, 3, 7), drawn(1, 4, 4, 8))]
    with pytest.raises(ValueError, match="expected weights contiguous"):
        _native.core().depthwise_apply(*wrong, (1, 1), (1, 1), (1, 1))
