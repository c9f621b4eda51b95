"""What every layer's geometry promises (see `layers/base.py`), over drawn geometries, and the registries."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_promises import CLOSE, FLOAT64, check_promises

from saal_fast.engines.layers import CallInterceptor, LayerCall, register_decomposition, register_layer, register_replacement
from saal_fast.engines.layers.conv import conv
from saal_fast.engines.layers.embedding import embedding
from saal_fast.engines.layers.linear import Linear, linear

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@st.composite
def convolutions(draw):
    """Two inputs, a weight, and keywords of a convolution over 1, 2 or 3 dimensions."""
    dims = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    groups, n = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, dilation = each(1, 4 - dims // 3), each(1, 2)
    padding = draw(st.sampled_from(["zeros", "same", "valid", "one number"]))
    stride = (1,) * dims if padding == "same" else each(1, 3)
    padded = {"zeros": each(0, 3), "same": "same", "valid": "valid", "one number": draw(st.integers(0, 2))}[padding]
    size = tuple((k - 1) * d + extra for k, d, extra in zip(kernel, dilation, each(1, 4 - dims // 2), strict=True))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    a, x = (torch.randn(n, channels, *size, **FLOAT64) for _ in range(2))
    if draw(st.booleans()):
        a = a.transpose(0, -1).contiguous().transpose(0, -1)  # as strided as they come
    weight = torch.randn(outputs, channels // groups, *kernel, **FLOAT64)
    return a, x, weight, {"stride": stride, "padding": padded, "dilation": dilation, "groups": groups}


@settings(max_examples=100, deadline=None)
@given(convolutions())
def test_convolution(drawn):
    a, x, weight, options = drawn
    out = CONVOLUTIONS[weight.ndim - 2](a, weight, **options)
    call = conv(a, weight, None, **options)
    columns, rows, groups, outputs = check_promises(call, out, x)
    torch.testing.assert_close(weight.reshape(groups, outputs, -1) @ columns, rows, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_factors_of_a_convolution_give_its_weight_gradient(drawn):
    a, _, weight, options = drawn
    weight.requires_grad_()
    out = CONVOLUTIONS[weight.ndim - 2](a, weight, **options)
    g = torch.randn_like(out)
    (want,) = torch.autograd.grad(out, weight, g)
    layer = conv(a, weight, None, **options).layer
    torch.testing.assert_close((layer.flatten_grad(g) @ layer.unfold_input(a).mT).reshape(weight.shape), want, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 5), st.integers(1, 5))
def test_linear(leading, inputs, outputs):
    a, x = (torch.randn(*leading, inputs, **FLOAT64) for _ in range(2))
    weight = torch.randn(outputs, inputs, **FLOAT64)
    out = F.linear(a, weight)
    columns, rows, _, _ = check_promises(linear(a, weight), out, x)
    torch.testing.assert_close(weight @ columns, rows, **CLOSE)
    transposed = LayerCall(Linear(transposed=True), a, weight.T, None)
    columns, rows, _, _ = check_promises(transposed, out, x)
    torch.testing.assert_close(transposed.layer.matrix(weight.T) @ columns, rows, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5), st.sampled_from([None, 0, 3, -1, -4]), st.data()
)
def test_embedding(shape, width, padding_idx, data):
    seeds = st.integers(0, 2**16)
    torch.manual_seed(data.draw(seeds))
    a, x = (torch.randint(0, 4, shape) for _ in range(2))
    weight = torch.randn(4, width, **FLOAT64, requires_grad=True)
    out = F.embedding(a, weight, padding_idx)
    call = embedding(a, weight, padding_idx)
    columns, _, _, _ = check_promises(call, out.detach(), x)
    g = torch.randn_like(out)
    (want,) = torch.autograd.grad(out, weight, g)
    torch.testing.assert_close((call.layer.flatten_grad(g) @ columns.mT)[0].mT, want, **CLOSE)


def test_what_a_rule_cannot_factor_is_left_to_autograd():
    weight = torch.randn(4, 3)
    assert linear(torch.randn(2, 3), torch.randn(3)) is None
    assert conv(torch.randn(2, 5, 5), torch.randn(3, 2, 3, 3)) is None
    assert embedding(torch.tensor([1]), weight, max_norm=1.0) is None
    assert embedding(torch.tensor([1]), weight, scale_grad_by_freq=True) is None


@pytest.mark.parametrize(
    ("register", "function"),
    [
        (register_layer, F.linear),
        (register_replacement, F.batch_norm),
        (register_decomposition, F.multi_head_attention_forward),
    ],
)
def test_registering_twice_raises(register, function):
    with pytest.raises(ValueError, match=r"already"):
        register(function)(lambda *args: None)


def test_sites_tell_weights_by_identity():
    seen = []

    class Notes(CallInterceptor):
        def at(self, name, call, run):
            assert isinstance(call, LayerCall)
            seen.append(name)
            return run() + 1

    x, known, unknown = torch.randn(2, 3), torch.randn(4, 3), torch.randn(4, 3)
    with Notes({id(known): "known"}):
        first, second = F.linear(x, known), F.linear(x, unknown)
    assert seen == ["known"]
    torch.testing.assert_close(first, x @ known.T + 1)
    torch.testing.assert_close(second, x @ unknown.T)
