"""Functions that run by other means give what torch's own give, batched by `vmap` or not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saal_fast.engines.layers import VmapReplacements

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
FLOAT64 = {"dtype": torch.float64}


def check_same(function, x):
    """VmapReplacements, and rewritten under `vmap` with samples as batches of one, a function gives what it gives."""
    want = function(x)
    with VmapReplacements():
        got = function(x)
        vmapped = torch.func.vmap(lambda one: function(one[None])[0])(x)
    torch.testing.assert_close(got, want, **CLOSE)
    torch.testing.assert_close(vmapped, want, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.booleans(), st.booleans(), st.sampled_from([1e-5, 0.1]))
def test_batch_norm(size, with_weight, with_bias, eps):
    mean, var, weight, bias = (torch.rand(3, **FLOAT64) + 0.1 for _ in range(4))
    weight, bias = weight if with_weight else None, bias if with_bias else None
    check_same(lambda x: F.batch_norm(x, mean, var, weight, bias, eps=eps), torch.randn(2, 3, *size, **FLOAT64))


def test_batch_norm_by_the_batchs_own_statistics():
    x = torch.randn(4, 3, 5, **FLOAT64)
    with VmapReplacements():
        torch.testing.assert_close(F.batch_norm(x, None, None, training=True), F.batch_norm(x, None, None, training=True))
    check_same(lambda x: F.batch_norm(x[:1], None, None, training=True).expand_as(x), x[:1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_recurrent_layers(kind, layers, bidirectional, bias):
    rnn = kind(4, 5, layers, bias=bias, bidirectional=bidirectional, batch_first=True).double()
    x = torch.randn(3, 6, 4, **FLOAT64)
    check_same(lambda x: rnn(x)[0], x)
    want, got = rnn(x)[1], None
    with VmapReplacements():
        got = rnn(x)[1]
    torch.testing.assert_close(got, want, **CLOSE)


def test_recurrent_layers_with_initial_states_projections_and_relu():
    x = torch.randn(2, 6, 4, **FLOAT64)
    projected = nn.LSTM(4, 5, 2, proj_size=3, batch_first=True).double()
    state = torch.randn(2, 2, 3, **FLOAT64), torch.randn(2, 2, 5, **FLOAT64)
    relu = nn.RNN(4, 5, nonlinearity="relu").double()
    for run in (lambda: projected(x, state), lambda: relu(x), lambda: relu(x[0])):
        want = run()
        with VmapReplacements():
            torch.testing.assert_close(run(), want, **CLOSE)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [False, True])
def test_recurrent_cells(kind, bias):
    cell = kind(4, 5, bias=bias).double()
    check_same(lambda x: cell(x)[0] if kind is nn.LSTMCell else cell(x), torch.randn(3, 4, **FLOAT64))


def test_dropout_between_layers_in_training_is_left_to_torch():
    rnn, x = nn.LSTM(4, 5, 2, dropout=0.5), torch.randn(2, 6, 4)
    torch.manual_seed(0)
    want = rnn(x)[0]
    torch.manual_seed(0)
    with VmapReplacements():
        assert torch.equal(rnn(x)[0], want)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_sequences(kind):
    rnn, lengths = kind(4, 5, bidirectional=True, batch_first=True).double(), torch.tensor([2, 6, 5])

    def last_and_all(x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, last = rnn(packed)
        padded, found = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=6, padding_value=7.0)
        return padded, found, last

    x = torch.randn(3, 6, 4, **FLOAT64)
    want = last_and_all(x, lengths)
    with VmapReplacements():
        torch.testing.assert_close(last_and_all(x, lengths), want, **CLOSE)  # several samples: torch's own
        for i in range(3):
            got = last_and_all(x[i : i + 1], lengths[i : i + 1])
            torch.testing.assert_close(got[0], want[0][i : i + 1], **CLOSE)
            assert got[1].tolist() == [lengths[i]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.sampled_from(["none", "causal", "bool", "float"]))
def test_scaled_dot_product_attention(heads, queries, keys, mask):
    k, v = (torch.randn(1, heads, keys, 4, **FLOAT64) for _ in range(2))
    attn_mask = {"bool": torch.rand(queries, keys) < 0.7, "float": torch.randn(queries, keys, **FLOAT64)}.get(mask)
    if mask == "bool":
        attn_mask[:, 0] = True

    def attend(q):
        return F.scaled_dot_product_attention(
            q, k.expand(len(q), -1, -1, -1), v.expand(len(q), -1, -1, -1), attn_mask=attn_mask, is_causal=mask == "causal"
        )

    check_same(attend, torch.randn(3, heads, queries, 4, **FLOAT64))


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_without_a_warning(need_weights, recwarn):
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    with torch.no_grad():
        check_same(lambda x: attention(x, x, x, need_weights=need_weights)[0], torch.randn(3, 5, 8, **FLOAT64))
    assert not [w for w in recwarn if "batching rule" in str(w.message)]


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weight_norm(dim):
    v = torch.randn(4, 3, 2, **FLOAT64)
    g = torch.norm_except_dim(v, 2, dim) * 0 + torch.rand_like(torch.norm_except_dim(v, 2, dim)) + 0.5
    want = torch._weight_norm(v, g, dim)
    with VmapReplacements():
        torch.testing.assert_close(torch._weight_norm(v, g, dim), want, **CLOSE)
        scales = torch.tensor([1.0, 2.0, 3.0], **FLOAT64)
        vmapped = torch.func.vmap(lambda scale: torch._weight_norm(v, g * scale, dim))(scales)
    torch.testing.assert_close(vmapped, scales[:, None, None, None] * want, **CLOSE)


@pytest.mark.parametrize("size", [1, (1, 1), 2, (1, None)])
def test_adaptive_average_pooling(size):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(3, 2, 4, 6, **FLOAT64).to(memory_format=memory_format)
        check_same(lambda x: F.adaptive_avg_pool2d(x, size), x)
    with VmapReplacements():
        torch.testing.assert_close(F.adaptive_avg_pool2d(x[0], 1), x[0].mean((1, 2), keepdim=True), **CLOSE)
