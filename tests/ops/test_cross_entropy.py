from __future__ import annotations

import pytest
import torch
from drawn import rows_of_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast.ops.cross_entropy import cross_entropy
from saal_fast.ops.cross_entropy.reference import MIN_LOSS
from saal_fast.tasks import Classification

TASK = Classification()


@settings(max_examples=60, deadline=None)
@given(logits=rows_of_logits(), given_label=st.booleans())
def test_equals_the_task(logits, given_label):
    label = logits.argmax(1).roll(0) if given_label else None
    y, loss, grad = cross_entropy(logits, label)
    assert torch.equal(y, TASK.pseudo_label(logits))
    z = logits.float().requires_grad_()
    expected = TASK.loss(z, y)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    (slope,) = torch.autograd.grad(expected.sum(), z)
    unscaled = grad.float() * loss.clamp(MIN_LOSS, 1.0)[:, None]
    rtol = 2e-2 if z.dtype != logits.dtype else 1e-5
    torch.testing.assert_close(unscaled, slope.nan_to_num(0.0), rtol=rtol, atol=1e-6)


def test_nearly_certain_rows_keep_their_digits():
    logits = torch.tensor([[60.0, 0.0, 1.0], [30.0, -30.0, 0.0]])
    _, loss, grad = cross_entropy(logits)
    exact = [torch.tensor(v, dtype=torch.float64).exp() for v in ([-60.0, -59.0], [-60.0, -30.0])]
    torch.testing.assert_close(loss.double(), torch.stack([e.sum() for e in exact]), rtol=1e-5, atol=0)
    scales = loss.clamp(MIN_LOSS, 1.0).double()
    torch.testing.assert_close(grad[:, 1:].double() * scales[:, None], torch.stack(exact), rtol=1e-5, atol=0)
    torch.testing.assert_close(grad[:, 0].double() * scales, -loss.double(), rtol=1e-5, atol=0)


def test_first_of_equals_is_the_label():
    assert cross_entropy(torch.zeros(2, 9))[0].tolist() == [0, 0]


def test_vmap_equals_a_loop():
    logits, label = torch.randn(4, 3, 6, dtype=torch.float64), torch.randint(6, (4, 3))
    for outs, each in (
        (vmap(cross_entropy)(logits), [cross_entropy(z) for z in logits]),
        (vmap(cross_entropy, in_dims=1)(logits), [cross_entropy(z) for z in logits.unbind(1)]),
        (vmap(cross_entropy)(logits, label), [cross_entropy(z, y) for z, y in zip(logits, label, strict=True)]),
        (vmap(lambda z: cross_entropy(z, label[0]))(logits), [cross_entropy(z, label[0]) for z in logits]),
    ):
        for out, expected in zip(outs, zip(*each, strict=True), strict=True):
            torch.testing.assert_close(out, torch.stack(expected))


def test_opcheck():
    logits = torch.randn(3, 5)
    library.opcheck(cross_entropy, (logits,))
    library.opcheck(cross_entropy, (logits.bfloat16(), torch.tensor([0, 4, 2])))


def test_bad_arguments_are_told():
    with pytest.raises(ValueError, match=r"logits \[N, C\].*got \[4, 1\]"):
        cross_entropy(torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"label \[N\].*got \[3\]"):
        cross_entropy(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"integers, got torch\.float32"):
        cross_entropy(torch.zeros(4, 2), torch.zeros(4))
