from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from transformers.modeling_outputs import SequenceClassifierOutput

from saal_fast.tasks import ChecksLabels, Classification, Task, logits_of, tensors_of

TASK = Classification()
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def logits(batch=5, classes=4, seed=0, spread=3.0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(batch, classes, generator=rng, dtype=torch.float64)).to(dtype)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(2, 12), st.sampled_from([1e-3, 1.0, 20.0, 300.0]), st.integers(0, 10**6))
def test_the_loss_and_its_gradient_are_the_cross_entropy(batch, classes, spread, seed):
    z = logits(batch, classes, seed, spread).requires_grad_()
    y = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    ours, theirs = TASK.loss(z, y), F.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), z)[0] for loss in (ours, theirs)), **CLOSE)


def test_under_vmap_it_is_the_same():
    z, y = logits(), torch.tensor([0, 1, 2, 3, 0])
    one = lambda z, y: TASK.loss(z[None], y[None])[0]  # noqa: E731
    torch.testing.assert_close(vmap(one)(z, y), TASK.loss(z, y), **CLOSE)
    theirs = vmap(grad(F.cross_entropy))(z, y)
    torch.testing.assert_close(vmap(grad(one))(z, y), theirs, **CLOSE)


def test_nearly_certain_samples_keep_their_order_and_gradient_in_fp32():
    margins = torch.arange(20.0, 80.0)
    z = F.pad(margins[:, None], (0, 2)).requires_grad_()
    y = torch.zeros(len(margins), dtype=torch.int64)
    loss = TASK.loss(z, y)
    assert (loss.diff() < 0).all()
    assert (F.cross_entropy(z, y, reduction="none")[1:] == 0).all()  # what the usual formula makes of them
    torch.testing.assert_close(loss.double(), torch.log1p(2 * torch.exp(-margins.double())), rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(slope[:, 0], -loss, rtol=1e-5, atol=0)


def test_equal_logits_cost_the_logarithm_of_the_classes():
    loss = TASK.loss(torch.zeros(1, 10, dtype=torch.float64), torch.tensor([7]))
    torch.testing.assert_close(loss, torch.tensor([10.0], dtype=torch.float64).log(), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_are_widened(dtype):
    z, y = logits(dtype=dtype), torch.tensor([0, 1, 2, 3, 0])
    loss = TASK.loss(z, y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(z.float(), y, reduction="none"), rtol=1e-6, atol=1e-6)


def test_the_pseudo_label_is_the_largest_logit_the_first_of_equals():
    label = TASK.pseudo_label(torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0]]))
    assert label.tolist() == [1, 0]
    assert label.dtype == torch.int64


Z = logits(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        Z,
        (Z, "attentions"),
        [Z],
        {"logits": Z},
        {"loss": torch.zeros(()), "logits": Z},
        OrderedDict(out=Z),
        SimpleNamespace(logits=Z),
        SequenceClassifierOutput(logits=Z),
        SequenceClassifierOutput(loss=torch.zeros(()), logits=Z),
    ],
    ids=lambda output: type(output).__name__,
)
def test_where_logits_are_found(output):
    assert logits_of(output) is Z
    assert torch.equal(TASK.pseudo_label(output), Z.argmax(1))


@pytest.mark.parametrize("output", [None, 3.0, "logits", (), [], {}, {"logits": [1, 2]}, (1, Z), SimpleNamespace(out=Z)])
def test_where_none_are_found(output):
    with pytest.raises(TypeError, match=f"expected the model to return logits.*got {type(output).__name__}.*task="):
        logits_of(output)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (torch.zeros(4), r"torch.float32 \[4\]"),
        (torch.zeros(2, 1), r"torch.float32 \[2, 1\]"),
        (torch.zeros(2, 3, 8, 8), r"torch.float32 \[2, 3, 8, 8\]"),
        (torch.zeros(2, 3, dtype=torch.int64), r"torch.int64 \[2, 3\]"),
        (torch.zeros(()), r"torch.float32 \[\]"),
    ],
)
def test_outputs_that_are_no_logits(output, got):
    for call in (lambda: TASK.pseudo_label(output), lambda: TASK.loss(output, torch.zeros(2, dtype=torch.int64))):
        with pytest.raises(ValueError, match=rf"expected logits \[B, C\] with C >= 2 classes, got {got}.*task="):
            call()


def test_labels_that_fit():
    TASK.check_labels(torch.tensor([0, 2, 1]), Z)
    TASK.check_labels(torch.tensor([0, 2, 1], dtype=torch.int32), Z)
    TASK.check_labels(torch.tensor([], dtype=torch.int64), Z)


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (torch.tensor([0.0, 1.0]), r"torch.float32 \[2\]"),
        (torch.tensor([True, False]), r"torch.bool \[2\]"),
        (torch.tensor([[0], [1]]), r"torch.int64 \[2, 1\]"),
        (torch.tensor(1), r"torch.int64 \[\]"),
        ({"boxes": torch.tensor([1])}, "dict"),
    ],
)
def test_labels_that_are_no_class_numbers(labels, got):
    with pytest.raises(TypeError, match=rf"expected labels as integers of shape \[N\], got {got}"):
        TASK.check_labels(labels, Z)


def test_labels_outside_the_classes_are_named():
    with pytest.raises(ValueError, match=r"labels in \[0, 3\).*got 2 outside: labels\[1\] = 3, labels\[2\] = -1$"):
        TASK.check_labels(torch.tensor([0, 3, -1, 2]), Z)
    with pytest.raises(ValueError, match=r"got 40 outside(: |, )(labels\[\d\] = 9,? ?){5}$"):
        TASK.check_labels(torch.full((40,), 9), Z)


def test_it_is_a_task_that_checks_labels():
    assert isinstance(TASK, Task)
    assert isinstance(TASK, ChecksLabels)
    assert not isinstance(torch.nn.CrossEntropyLoss(), Task)


def test_the_tensors_of_an_output():
    whole = torch.zeros(2, dtype=torch.int64)
    assert tensors_of(whole) == []
    assert tensors_of(None) == []
    found = tensors_of({"a": Z, "b": (whole, [Z + 1]), "c": 3, "d": SimpleNamespace(logits=Z + 2)})
    assert [(t - Z).max().item() for t in found] == pytest.approx([0, 1, 2])
