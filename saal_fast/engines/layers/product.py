"""Products with a parameter, written as products of matrices or as sums over indices: `x @ W`, `torch.einsum`, `torch.bmm`.

Each dimension has a label, as in `torch.einsum`. By the tensors that have it (x the input, W the weight, o the output) it is

    x, W, o    a group: each has a weight of its own (experts, heads)
    x, W       one of the product's D inputs
    W, o       one of its O outputs
    x, o       a position
    x          summed before the product
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import LayerCall, register_decomposition, register_layer
from .linear import Linear
from .rows import Rows

Dims = tuple[int, ...]
Labels = tuple[Any, ...]
Calls = tuple[LayerCall, ...]


@dataclass(frozen=True)
class Product(Rows):
    """Geometry of a product over labelled dimensions.

    Attributes:
        summed: the input's dimensions that are summed before the product.
        of_input: the input's dimensions that are groups, positions, inputs.
        of_weight: the weight's that are groups, outputs, inputs.
        of_output: the output's that are groups, positions, outputs.
        sizes: the sizes of the output's that are outputs.
    """

    summed: Dims
    of_input: tuple[Dims, Dims, Dims]
    of_weight: tuple[Dims, Dims, Dims]
    of_output: tuple[Dims, Dims, Dims]
    sizes: Dims

    @property
    def grouped(self) -> bool:
        return bool(self.of_weight[0])

    def inputs(self, x: Tensor) -> Tensor:
        summed = [d for d in self.summed if x.shape[d] != 1]
        x = x.sum(summed, keepdim=True) if summed else x
        return x.permute(*_joined(self.of_input), *self.summed).reshape(_sizes(x, self.of_input))

    def outputs(self, g: Tensor) -> Tensor:
        return g.permute(_joined(self.of_output)).reshape(_sizes(g, self.of_output))

    def from_rows(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        order = _joined(self.of_output)
        return rows.reshape([shape[d] for d in order]).permute([order.index(d) for d in range(len(order))])

    def output_shape(self, x: Tensor, outputs: int) -> Sequence[int]:
        order = _joined(self.of_output)
        sizes = [x.shape[d] for d in self.of_input[0] + self.of_input[1]] + list(self.sizes)
        return [sizes[order.index(d)] for d in range(len(order))]

    def matrix(self, weight: Tensor) -> Tensor:
        sizes = _sizes(weight, self.of_weight)
        return weight.permute(_joined(self.of_weight)).reshape(sizes if self.grouped else sizes[1:])


def _joined(dims: tuple[Dims, Dims, Dims]) -> Dims:
    return dims[0] + dims[1] + dims[2]


def _sizes(t: Tensor, dims: tuple[Dims, Dims, Dims]) -> list[int]:
    return [math.prod([t.shape[d] for d in kind]) for kind in dims]


@lru_cache(maxsize=1024)
def _geometry(x: Labels, weight: Labels, out: Labels, sizes: Dims) -> Product | None:
    """The geometry of a product with a weight of these sizes; None where it is no product with a matrix a group."""
    in_x, in_weight, in_out = set(x), set(weight), set(out)
    repeats = any(len(set(labels)) < len(labels) for labels in (x, weight, out))
    ones = [n for n, size in zip(weight, sizes, strict=True) if n not in in_x | in_out and size == 1]
    if repeats or not in_weight - set(ones) <= in_x | in_out or not in_out <= in_x | in_weight:
        return None
    groups = [n for n in weight if n in in_x and n in in_out]
    inputs = [n for n in weight if n in in_x and n not in in_out]
    outputs = [n for n in weight if n not in in_x and n in in_out]
    positions = [n for n in x if n not in in_weight and n in in_out]

    def places(labels: Labels, *kinds: list[Any]) -> Any:
        return tuple(tuple(labels.index(n) for n in kind) for kind in kinds)

    return Product(
        tuple(i for i, n in enumerate(x) if n not in in_weight | in_out),
        places(x, groups, positions, inputs),
        places(weight, groups, outputs, inputs + ones),
        places(out, groups, positions, outputs),
        tuple(sizes[weight.index(n)] for n in outputs),
    )


def _call(x: Tensor, x_labels: Labels, weight: Tensor, weight_labels: Labels, out: Labels) -> Calls:
    layer = _geometry(x_labels, weight_labels, out, tuple(weight.shape))
    return () if layer is None else (LayerCall(layer, x, weight, None),)


# --- products of matrices --------------------------------------------------------------------------


@register_layer(
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm, torch.mv, Tensor.mv
)
def matmul(*args: Any, **kwargs: Any) -> Calls:
    """`torch.matmul` and its kin, with the weight on either side."""
    factors = [*args, *kwargs.values()]
    if len(factors) != 2 or "out" in kwargs or not all(isinstance(t, Tensor) and t.ndim > 0 for t in factors):
        return ()
    first, second = factors
    if second.ndim == 2:
        return LayerCall(Linear(transposed=True), first, second, None), *_of_matmul(second, first, weight_first=True)
    return *_of_matmul(first, second, weight_first=False), *_of_matmul(second, first, weight_first=True)


def _of_matmul(x: Tensor, weight: Tensor, *, weight_first: bool) -> Calls:
    x_labels, weight_labels, out = _labels_of_matmul(tuple(x.shape), tuple(weight.shape), weight_first)
    return _call(x, x_labels, weight, weight_labels, out)


@lru_cache(maxsize=1024)
def _labels_of_matmul(x: Dims, weight: Dims, weight_first: bool) -> tuple[Labels, Labels, Labels]:
    """The labels of input, weight and output; a dimension of 1 that broadcasting repeats has a label of its own."""
    depth = max(len(x), len(weight), 2) - 2
    of_x, of_weight = (dict(zip(range(depth - len(s[:-2]), depth), s[:-2], strict=True)) for s in (x, weight))
    lead_x = tuple(("x", i) if n == 1 != of_weight.get(i, 1) else i for i, n in of_x.items())
    lead_weight = tuple(("weight", i) if n == 1 and i in of_x else i for i, n in of_weight.items())
    rows, columns = ("row", "inner"), ("inner", "column")
    if weight_first:
        return lead_x + columns[: len(x)], lead_weight + rows[-len(weight) :], _of_output(depth, weight, x)
    return lead_x + rows[-len(x) :], lead_weight + columns[: len(weight)], _of_output(depth, x, weight)


def _of_output(depth: int, first: Dims, second: Dims) -> Labels:
    return (*range(depth), *("row",) * (len(first) > 1), *("column",) * (len(second) > 1))


@register_decomposition(torch.addmm, Tensor.addmm, torch.addmv, Tensor.addmv, torch.baddbmm, Tensor.baddbmm)
def add_product(
    input: Tensor, *factors: Tensor, beta: float = 1, alpha: float = 1, out: Tensor | None = None, **named: Tensor
) -> Any:
    """`torch.addmm` and its kin: a linear layer with a bias, or a product and a sum, as `vmap` would run it."""
    first, second = *factors, *named.values()
    if out is not None or not first.is_floating_point():
        return NotImplemented
    if (input.ndim, first.ndim, second.ndim, beta, alpha) == (1, 2, 2, 1, 1):
        return F.linear(first, second.mT, input)
    product = first @ second
    return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)


# --- sums over indices -----------------------------------------------------------------------------


@register_layer(torch.einsum)
def einsum(equation: Any, *operands: Any) -> Calls:
    """`torch.einsum` of two tensors; other forms are left to autograd."""
    factors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or len(factors) != 2:
        return ()
    a, b = factors
    labels = _labels_of_einsum(equation.replace(" ", ""), a.ndim, b.ndim)
    if labels is None or not _same_sizes(zip((a, b), labels, strict=False)):
        return ()
    of_a, of_b, out = labels
    return *_call(a, of_a, b, of_b, out), *_call(b, of_b, a, of_a, out)


@lru_cache(maxsize=1024)
def _labels_of_einsum(equation: str, *ndims: int) -> tuple[Labels, ...] | None:
    """The labels of the factors and the output; None where the equation does not fit."""
    given, arrow, out = equation.partition("->")
    terms = given.split(",")
    if len(terms) != len(ndims):
        return None
    labels = [_spelled(term, n) for term, n in zip(terms, ndims, strict=True)]
    if any(len(found) != n for found, n in zip(labels, ndims, strict=True)):
        return None
    dots = max((n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t), default=0)
    if not arrow:  # what appears once, in alphabetical order
        letters = given.replace("...", "").replace(",", "")
        out = "..." * ("..." in given) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return *labels, _spelled(out, len(out.replace("...", "")) + dots * ("..." in out))


def _spelled(term: str, ndim: int) -> Labels:
    """The labels of a term; the dimensions of an ellipsis are numbered from the last, which is 0."""
    before, dots, after = term.partition("...")
    hidden = ndim - len(before) - len(after) if dots else 0
    return *before, *range(hidden - 1, -1, -1), *after


def _same_sizes(factors: Iterable[tuple[Tensor, Labels]]) -> bool:
    """Whether each label has one size: none is repeated by broadcasting."""
    sizes: dict[Any, int] = {}
    return all(sizes.setdefault(n, size) == size for t, labels in factors for n, size in zip(labels, t.shape, strict=True))


@register_layer(torch.tensordot)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Calls:
    """`torch.tensordot`."""
    if out is not None or isinstance(dims, Tensor):
        return ()
    summed_a, summed_b = (range(-dims, 0), range(dims)) if isinstance(dims, int) else dims
    of_a, of_b = [("a", i) for i in range(a.ndim)], [("b", i) for i in range(b.ndim)]
    for n, (i, j) in enumerate(zip(summed_a, summed_b, strict=True)):
        of_a[i] = of_b[j] = ("both", n)
    out_labels = [n for n in (*of_a, *of_b) if n[0] != "both"]
    return (
        *_call(a, tuple(of_a), b, tuple(of_b), tuple(out_labels)),
        *_call(b, tuple(of_b), a, tuple(of_a), tuple(out_labels)),
    )
