"""A packed sequence whose samples have different lengths, of each one sample: what stands for it under `vmap`.

`PackedSequence.data` has as many rows as the sample has steps, a shape that `vmap` cannot have differ between samples.
Recurrent layers can do without: they are given the padded steps and the length (`recurrent.py`). Whoever else touches the
data splits the batch, as one who asks for the length does; samples of one length have data like any other.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_packed_sequence
from torch.utils._pytree import tree_leaves

from ..branches import ask


class Length(int):
    """The longest sample's number of steps, where each sample's own is meant."""


class _StandIn:
    """What a sample's number of steps is needed for, to be used as a tensor."""

    length: Tensor

    def split(self) -> Any:
        """Has samples of one length scored together.

        Raises:
            Diverged: always; samples differ.
        """
        ask(Tensor.item, self.length)
        raise AssertionError("expected samples of different lengths")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.split()

    @classmethod
    def __torch_function__(cls, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """A function of torch's that nobody has taken over."""
        return next(t for t in tree_leaves((args, kwargs)) if isinstance(t, _StandIn)).split()


def _split(self: _StandIn, *args: Any) -> Any:
    return self.split()


_UNARY = ("len", "iter", "bool", "float", "int", "index", "neg", "abs", "invert")
_BINARY = ("getitem", "contains", "lt", "le", "gt", "ge", "eq", "ne")
_EITHER_SIDE = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
for _name in (*_UNARY, *_BINARY, *_EITHER_SIDE, *(f"r{name}" for name in _EITHER_SIDE)):
    setattr(_StandIn, f"__{_name}__", _split)


class Padded(_StandIn):
    """In place of `PackedSequence.data`.

    Attributes:
        steps: [T, ...], T at least the longest sample's number of steps; past a sample's length they are anything.
        length: int64, 0-d; of each sample its own.
    """

    def __init__(self, steps: Tensor, length: Tensor) -> None:
        self.steps, self.length = steps, length
        self.dtype, self.device = steps.dtype, steps.device

    def dim(self) -> int:
        """Dimensions of the data."""
        return self.steps.ndim

    def size(self, dim: int | None = None) -> Any:
        """The size of a dimension other than the first."""
        return self.steps.shape[dim] if dim not in (None, 0, -self.steps.ndim) else self.split()


class StepSizes(_StandIn):
    """In place of `PackedSequence.batch_sizes`, which is a one for each step."""

    device = torch.device("cpu")

    def __init__(self, longest: int, length: Tensor) -> None:
        self.longest, self.length = longest, length

    def __getitem__(self, index: Any) -> Any:
        return torch.tensor(1, device="cpu") if index == 0 else self.split()

    def size(self, dim: int | None = None) -> Any:
        """The number of steps, for `pad_packed_sequence`, which hands it on."""
        inside = sys._getframe(1).f_code is pad_packed_sequence.__code__
        return Length(self.longest) if inside else self.split()
