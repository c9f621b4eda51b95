"""Functions that give Python values under `vmap`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held import check_same, parts_of
from torch import Tensor

X = torch.tensor([[1.0, 2.0], [0.0, 2.0], [1.0, 5.0], [0.0, 0.0]])
ONE_OR_NOT = [[0, 2], [1, 3]]

ASK = {
    "contains": lambda x: torch.ones(()) if 0 in x else torch.zeros(()),
    "contains a tensor": lambda x: torch.ones(()) if x[0] in torch.tensor([1.0]) else torch.zeros(()),
    "equal": lambda x: torch.ones(()) * torch.equal(x[:1], torch.ones(1)),
    "method equal": lambda x: torch.ones(()) * torch.ones(1).equal(x[:1]),
    "allclose": lambda x: torch.ones(()) * torch.allclose(x[0], torch.tensor(1.0)),
    "method allclose": lambda x: torch.ones(()) * x[0].allclose(torch.tensor(1.1), atol=0.2),
    "is_nonzero": lambda x: torch.ones(()) * torch.is_nonzero(x[0]),
    "method is_nonzero": lambda x: torch.ones(()) * x[0].is_nonzero(),
    "all equal": lambda x: torch.ones(()) * bool((x[:1] == 1).all()),
    "format": lambda x: torch.ones(()) * float(f"{x[0]:.1f}"),
    "str": lambda x: torch.ones(()) * ("1" in str(x[0])),
    "repr of a vector": lambda x: torch.ones(()) * ("1" in repr(x[:1])),
    "complex": lambda x: torch.ones(()) * complex(x[0]).real,
    "numpy": lambda x: torch.ones(()) * float(x[:1].numpy()[0]),
    "asarray": lambda x: torch.ones(()) * float(np.asarray(x[0], dtype=np.float64)),
    "tolist": lambda x: torch.tensor(x[:1].tolist()),
    "tensor of tensors": lambda x: torch.tensor([x[0], 2.0]),
    "full": lambda x: torch.full((2,), x[0]),
    "slice": lambda x: torch.arange(3)[x[0].long() :].sum(),
    "arange": lambda x: torch.arange(x[0].long() + 1).sum(),
    "repeat_interleave": lambda x: torch.arange(2).repeat_interleave(x[:1].long() + 1).sum(),
    "bincount": lambda x: torch.bincount(x[:1].long()).sum(),
    "pad": lambda x: torch.nn.functional.pad(x[1:], (0, int(x[0]))).sum() * 0,
}


@pytest.mark.parametrize("name", ASK)
def test_samples_that_answer_alike_are_parts(name):
    assert parts_of(ASK[name], X) == ONE_OR_NOT
    for part in ONE_OR_NOT:
        check_same(ASK[name], X[part])


def test_not_a_number_equals_nothing():
    x = torch.tensor([[torch.nan, 1.0], [torch.nan, 1.0]])
    check_same(lambda x: torch.ones(()) * torch.equal(x, torch.tensor([torch.nan, 1.0])), x)
    check_same(lambda x: torch.ones(()) * torch.allclose(x, torch.tensor([torch.nan, 1.0]), equal_nan=True), x)


def test_tensors_of_different_shapes_are_not_equal():
    check_same(lambda x: torch.ones(()) * torch.equal(x, x[:1]), X)


def test_an_array_of_one_sample_is_not_written_to():
    def write(x: Tensor) -> Tensor:
        x.numpy()[0] = 3.0
        return x

    with pytest.raises(ValueError, match="read-only"):
        check_same(write, torch.ones(2, 3))
