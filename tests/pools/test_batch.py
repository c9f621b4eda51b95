"""Parts of a batch."""

import pytest
import torch

from saal_fast.pools import Batch


def batch(n=4, start=10):
    x = torch.arange(n)
    return Batch((x,), {"mask": x[:, None] + 100}, n, start, labels=(x + 200,))


def contents(part):
    return part.args[0].tolist(), part.kwargs["mask"][:, 0].tolist(), part.labels[0].tolist(), part.size, part.start


@pytest.mark.parametrize(("begin", "end", "rows"), [(0, 1, [0]), (1, 3, [1, 2]), (2, 9, [2, 3]), (3, 4, [3])])
def test_a_slice(begin, end, rows):
    assert contents(batch().slice(begin, end)) == (
        rows,
        [100 + r for r in rows],
        [200 + r for r in rows],
        len(rows),
        10 + begin,
    )


def test_a_slice_of_all_is_the_batch_itself():
    whole = batch()
    assert whole.slice(0, 4) is whole
    assert whole.slice(0, 9) is whole


@pytest.mark.parametrize(("begin", "end"), [(4, 2), (2, 2), (-2, 6), (-2, -1), (0, -1), (4, 6), (0, 0)])
def test_a_slice_without_samples_of_the_batch(begin, end):
    with pytest.raises(ValueError, match=rf"expected 0 <= begin < end and begin < 4, got \[{begin}, {end}\)"):
        batch().slice(begin, end)


def test_rows_in_their_order():
    rows = [3, 0, 3]
    taken = batch().take(torch.tensor(rows))
    assert contents(taken) == (rows, [103, 100, 103], [203, 200, 203], 3, 10)  # start: that of the batch


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([True, False, True, False]),
        torch.tensor([1.0, 2.0]),
        torch.tensor([1, 2], dtype=torch.int32),
        torch.tensor([[0, 1]]),
        torch.tensor(1),
        torch.tensor([], dtype=torch.int64),
    ],
    ids=str,
)
def test_rows_that_are_no_positions(rows):
    with pytest.raises(ValueError, match=r"expected rows as int64 \[n\], n >= 1; got torch.\w+ \["):
        batch().take(rows)
