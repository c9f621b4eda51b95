"""Labels of several batches become one pytree where shapes allow it; want of memory is no difference in shape."""

import pytest
import torch

from saal_fast.engines import problem
from saal_fast.engines.problem import join


def test_labels_of_one_shape():
    a, b = torch.arange(3), torch.arange(2)
    assert torch.equal(join([a, b]), torch.tensor([0, 1, 2, 0, 1]))
    joined = join([{"class": a, "box": torch.ones(3, 4)}, {"class": b, "box": torch.zeros(2, 4)}])
    assert joined["class"].shape == (5,)
    assert joined["box"].shape == (5, 4)
    assert join([(a.float(), b), (a.double(), b)])[0].dtype == torch.float64


@pytest.mark.parametrize(
    "labels",
    [
        [torch.ones(2, 3), torch.ones(2, 4)],
        [torch.ones(2, 3), torch.ones(2)],
        [torch.ones(()), torch.ones(())],
        [{"a": torch.ones(2)}, {"b": torch.ones(2)}],
        [(torch.ones(2), torch.ones(1, 2)), (torch.ones(2), torch.ones(1, 3))],
        ["cat", "dog"],
        [torch.ones(2), None],
    ],
)
def test_labels_that_differ_in_shape_or_are_no_tensors(labels):
    joined = join(labels)
    assert isinstance(joined, list)
    assert all(a is b for a, b in zip(joined, labels, strict=True))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), RuntimeError("DefaultCPUAllocator: can't allocate")])
def test_want_of_memory_is_raised(error, monkeypatch):
    def cat(parts):
        raise error

    monkeypatch.setattr(problem.torch, "cat", cat)
    with pytest.raises(RuntimeError, match=r"memory|allocate"):
        join([torch.arange(3), torch.arange(3)])
