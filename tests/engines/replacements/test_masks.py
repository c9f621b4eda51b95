"""Rows that masks take, and what is written by masks."""

from __future__ import annotations

import pytest
import torch
from held import check_same, parts_of, under_vmap
from hypothesis import given, settings
from hypothesis import strategies as st

X = torch.arange(24.0).reshape(2, 3, 4) + 1
MASK = torch.tensor([[True, False, True], [False, True, True]])  # two ones a sample
WIDE = torch.tensor([[[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]], [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]]).bool()


def written(x, index, value):
    x = x.clone()
    x[index] = value
    return x


TAKE = {
    "rows": lambda x, m, w: x[m],
    "rows and all columns": lambda x, m, w: x[m, :],
    "rows and a column": lambda x, m, w: x[m, 1],
    "rows and a slice": lambda x, m, w: x[m, 1:3],
    "columns": lambda x, m, w: x.T[:, m],
    "with an ellipsis": lambda x, m, w: x.T[..., m],
    "with none": lambda x, m, w: x[None, m],
    "numbers": lambda x, m, w: x[w],
    "of a batch of one": lambda x, m, w: x[None][m[None], :],
    "mask as bytes": lambda x, m, w: x[m.nonzero().squeeze(1)],
    "mask of a shared tensor": lambda x, m, w: torch.arange(3)[m],
    "nonzero": lambda x, m, w: w.nonzero(),
    "nonzero as tuple": lambda x, m, w: torch.nonzero(w, as_tuple=True),
    "nonzero of numbers": lambda x, m, w: (x * w).nonzero(),
    "where": lambda x, m, w: torch.where(w),
    "argwhere": lambda x, m, w: w.argwhere(),
    "masked_select": lambda x, m, w: x.masked_select(w),
    "masked_select, spread": lambda x, m, w: torch.masked_select(x, m[:, None]),
    "count": lambda x, m, w: torch.tensor(len(x[m])),
    "write a number": lambda x, m, w: written(x, m, 7.0),
    "write a tensor of one number": lambda x, m, w: written(x, w, x.sum()),
    "write a row": lambda x, m, w: written(x, m, x.sum(0)),
    "write one row to all": lambda x, m, w: written(x, m, x.sum(0, keepdim=True)),
    "write rows": lambda x, m, w: written(x, m, x[m] * 2),
    "write numbers": lambda x, m, w: written(x, w, x[w].cumsum(0)),
    "write columns": lambda x, m, w: written(x.T, (slice(None), m), x[m].T * 2),
    "write one column to all": lambda x, m, w: written(x.T, (slice(None), m), x.T[:, :1]),
    "write by an ellipsis": lambda x, m, w: written(x.T, (..., m), -1.0),
    "write and a column": lambda x, m, w: written(x, (m, 1), x[m, 2]),
    "write and a slice": lambda x, m, w: written(x, (m, slice(1, 3)), 0.5),
    "write into a shared tensor": lambda x, m, w: written(torch.zeros(3, 4), m, x[m]),
    "write an integer": lambda x, m, w: written(x.long(), m, 2.7),
    "masked_scatter": lambda x, m, w: x.masked_scatter(w, x.flip(0)),
    "masked_scatter_": lambda x, m, w: torch.zeros(3, 4).masked_scatter_(w, x.flip(0)),
    "in place by mask": lambda x, m, w: x[m].mul_(2).sum() + x.clone().masked_fill_(w, 3.0),
    "unique": lambda x, m, w: torch.unique(w.long(), return_inverse=True, return_counts=True),
    "unique of one": lambda x, m, w: torch.unique_consecutive(m.sum()[None]),
    "unique_consecutive": lambda x, m, w: torch.unique_consecutive(x // 100, return_inverse=True, return_counts=True),
    "unique of a vector along it": lambda x, m, w: torch.unique(m.cumsum(0) * 0, dim=0),
    "one_hot": lambda x, m, w: torch.nn.functional.one_hot(m.long(), 3),
    "one_hot of unsaid classes": lambda x, m, w: torch.nn.functional.one_hot(m.long().cumsum(0)),
}


@pytest.mark.parametrize("name", TAKE)
def test_samples_with_as_many_ones_are_taken_together(name):
    check_same(TAKE[name], X, MASK, WIDE)


@pytest.mark.parametrize("name", ["rows", "nonzero", "where", "masked_select", "write rows"])
def test_only_how_many_ones_there_are_splits_samples(name):
    mask = torch.tensor([[True, False, True], [False, True, True], [True, False, False], [False, False, False]])
    wide = mask[..., None].expand(4, 3, 4)
    assert parts_of(TAKE[name], torch.cat([X, X]), mask, wide) == [[0, 1], [2], [3]]


@pytest.mark.parametrize("name", ["write a number", "write a row", "write one row to all", "masked_scatter"])
def test_what_needs_no_number_of_ones_splits_nothing(name):
    mask = torch.tensor([[True, False, True], [False, True, True], [True, False, False], [False, False, False]])
    check_same(TAKE[name], torch.cat([X, X]), mask, mask[..., None].expand(4, 3, 4))


def test_rows_that_are_not_as_many_as_the_ones_are_refused():
    with pytest.raises(IndexError, match="expected 2 rows"):
        under_vmap(lambda x, m: written(x, m, torch.zeros(3, 4)), X, MASK)
    with pytest.raises(RuntimeError, match="for each of the ones"):
        under_vmap(lambda x, m: x.masked_scatter(m[:, None], torch.zeros(7)), X, MASK)
    with pytest.raises(RuntimeError, match="index"):
        under_vmap(lambda x, m: torch.nn.functional.one_hot(m.long() + 1, 2), X, MASK)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_any_shape(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(1, *shape, generator=generator) > 0.5
    mask = torch.cat([mask, mask.flip(*range(1, mask.ndim))])  # as many ones
    x = torch.randn(2, *shape, 2, generator=generator)
    check_same(lambda x, m: (x[m], m.nonzero(), written(x, m, x[m].flip(0)), x[..., 0].masked_select(m)), x, mask)
    check_same(lambda x, m: torch.unique(m), x, mask) if 0 < int(mask[0].sum()) < mask[0].numel() else None


def test_gradients_pass():
    def loss(x, mask):
        out = torch.zeros(3, 4)
        out[mask] = x[mask] ** 2
        return (out.masked_scatter(mask[:, None], x.sin()) * torch.arange(12.0).view(3, 4)).sum()

    got = under_vmap(torch.func.grad(loss), X, MASK)
    want = torch.stack([torch.func.grad(lambda x, m=m: loss(x, m))(x) for x, m in zip(X, MASK, strict=True)])
    torch.testing.assert_close(got, want)


CUBE = torch.arange(120.0).reshape(2, 3, 4, 5) + 1
EACH = torch.tensor([1, 2])  # each sample's own
BY_INTEGERS = {
    "first": lambda i: i,
    "last of a tuple": lambda i: (slice(None), i),
    "after an ellipsis": lambda i: (..., i),
    "before an ellipsis": lambda i: (i, ..., 0),
    "after a new dimension": lambda i: (None, i),
    "after an integer": lambda i: (1, i),
    "before a slice": lambda i: (i, slice(1, 3)),
    "between slices": lambda i: (slice(1, None), i, slice(0, 2), None),
    "two": lambda i: (i, i),
    "three": lambda i: (i, i - 1, i),
    "negative": lambda i: (-i, slice(None), 0),
}


@pytest.mark.parametrize("kind", [torch.float64, torch.int64])
@pytest.mark.parametrize("name", BY_INTEGERS)
def test_integers_of_each_samples_own_split_nothing(name, kind):
    index, x = BY_INTEGERS[name], CUBE.to(kind)
    check_same(lambda x, i: x[index(i)], x, EACH)
    check_same(lambda x, i: written(x, index(i), 7), x, EACH)
    check_same(lambda x, i: written(x, index(i), x[index(i)] * 2), x, EACH)
    check_same(lambda x, i: written(torch.zeros(3, 4, 5).to(kind), index(i), x[index(i)].flatten()[0]), x, EACH)

    def add_and_read_again(x, i):
        x[index(i)] += 1
        return x + x[index(i)].sum()

    check_same(add_and_read_again, x, EACH)


def test_what_a_row_of_each_samples_own_shares_with_the_whole_is_kept():
    def write_through(x, i):
        row = x[i]
        row.mul_(2)
        return x + 0

    def write_past(x, i):
        row = x[i]
        x.add_(1)
        return row + 0

    for function in (write_through, write_past):
        assert parts_of(function, CUBE, EACH) == [[0], [1]]
        check_same(function, CUBE, torch.tensor([1, 1]))


def test_integers_apart_from_each_other_are_asked_for():
    assert parts_of(lambda x, i: x[i, :, i], CUBE, EACH) == [[0], [1]]
    check_same(lambda x, i: x[i, :, i], CUBE, torch.tensor([2, 2]))
