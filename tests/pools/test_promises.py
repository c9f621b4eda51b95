"""Pools that yield fewer or more samples than they say."""

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, Subset, TensorDataset

from saal_fast import score, select
from saal_fast.pools import Stream
from saal_fast.strategies import make

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


class Ends(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index >= 3:
            raise StopIteration
        return X[index]


class Flow(IterableDataset):
    def __init__(self, yields, says):
        self.yields, self.says = yields, says

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(X[torch.arange(self.yields) % 12])


class Sampler(list):
    """Indices, and another length than theirs."""

    def __init__(self, indices, says):
        super().__init__(indices)
        self.says = says

    def __len__(self):
        return self.says


class Batches(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index == 2:
            raise StopIteration
        return X[:4]


def drop(rows):
    return torch.stack([row for row in rows if not torch.equal(row, X[5])])


LOADERS = [
    (lambda **o: DataLoader(X, 4, sampler=Sampler(range(8), 12), **o), 12, 8),
    (lambda **o: DataLoader(X, 4, sampler=Sampler(range(12), 8), **o), 8, 12),
    (lambda **o: DataLoader(X, 5, collate_fn=drop, **o), 12, 9),
]
FURTHER_LOADERS = [  # slowly by workers: torch may take ten seconds to clear away those of a loader that ended early
    (lambda **o: DataLoader(Ends(), 3, **o), 12, 3),
    (lambda **o: DataLoader(Ends(), 1, **o), 12, 3),
    (lambda **o: DataLoader(Ends(), 5, **o), 12, 0),
    (lambda **o: DataLoader(Ends(), batch_sampler=[[0, 1], [2, 3], [4]], **o), 3, 1),  # batches
    (lambda **o: DataLoader(Batches(), batch_size=None, **o), 3, 2),  # batches
    (lambda **o: DataLoader(X, 4, sampler=Sampler(range(7), 9), **o), 9, 7),
    (lambda **o: DataLoader(X, batch_sampler=Sampler([[0, 1], [2]], 3), **o), 3, 2),  # batches
    (lambda **o: DataLoader(X, 5, collate_fn=drop, drop_last=True, **o), 10, 9),
]


@pytest.mark.parametrize(
    ("loader", "promised", "got", "workers"),
    [
        *((*case, 0) for case in LOADERS + FURTHER_LOADERS),
        *((*case, 2) for case in LOADERS),
        *(pytest.param(*case, 2, marks=pytest.mark.slow) for case in FURTHER_LOADERS),
    ],
)
def test_loaders_that_break_their_promise(loader, promised, got, workers):
    with pytest.raises(ValueError, match="expected") as caught:
        score(mlp(), loader(num_workers=workers))
    assert {str(promised), str(got)} <= set(str(caught.value).replace(";", " ").replace(")", " ").split())


def test_direct_pools_that_break_their_promise():
    for pool, promised, got in [(Ends(), 12, 3), (Flow(9, 12), 12, 9), (Flow(15, 12), 12, 15)]:
        for call in (score, lambda m, p: select(m, p, 2), lambda m, p: make("coreset").select(m, p, 2)):
            with pytest.raises(ValueError, match=rf"expected {promised} samples.*\b{got}\b"):
                call(mlp(), pool)


@pytest.mark.parametrize(
    ("yields", "says", "workers", "got"), [(9, 12, 0, 9), (15, 12, 0, 15), (9, 12, 1, 9), (12, 12, 2, 24)]
)
@pytest.mark.parametrize("size", [4, pytest.param(None, marks=pytest.mark.slow)])
def test_flows_that_break_their_promise(yields, says, workers, got, size):
    loader = DataLoader(Flow(yields, says), size, num_workers=workers)
    if size is None:
        loader.collate_fn = lambda row: row[None]
    with pytest.raises(ValueError, match=rf"expected {says} .*\b{got}\b") as caught:
        score(mlp(), loader)
    assert ("get_worker_info" in str(caught.value)) == (workers == 2)


def test_what_keeps_its_promise_is_scored():
    expected = score(mlp(), X)
    own = BatchSampler(SequentialSampler(X), 5, drop_last=False)
    for loader, count in [
        (DataLoader(X, 5), 12),
        (DataLoader(X, 5, drop_last=True), 10),
        (DataLoader(X, batch_sampler=own), 12),
        (DataLoader(X, batch_sampler=[[0, 1, 2], [3]], num_workers=2), 4),
        (DataLoader(X, batch_sampler=[[0, 1, 2], [3]], num_workers=1, persistent_workers=True), 4),
        (DataLoader([X[:5], X[5:]], batch_size=None), 12),
        (DataLoader(Flow(12, 12), 5), 12),
        (DataLoader(Flow(12, 12), 5, drop_last=True), 10),
        (DataLoader(X, 5, sampler=range(12)), 12),
        (Flow(12, 12), 12),
    ]:
        torch.testing.assert_close(score(mlp(), loader), expected[:count])


def test_a_collate_fn_that_drops_samples_of_a_batch_sampler():
    loader = DataLoader(X, batch_sampler=[[0, 1, 2], [4, 5, 6], [7]], collate_fn=drop)
    with pytest.raises(ValueError, match=r"batch 1 of the DataLoader .*a first dimension of 2 where 3 samples were drawn"):
        score(mlp(), loader)


def test_a_subset_of_a_stale_length():
    with pytest.raises(IndexError) as caught:
        score(mlp(), Subset(TensorDataset(X[:6]), range(12)))
    assert caught.value.sample == len(caught.value.scores_so_far) == 6


def test_a_sampler_without_a_length():
    class Endless:
        def __iter__(self):
            return iter(range(12))

    assert Stream(DataLoader(X, 5, sampler=Endless()), torch.device("cpu")).length is None
    torch.testing.assert_close(score(mlp(), DataLoader(X, 5, sampler=Endless())), score(mlp(), X))
    with pytest.raises(ValueError, match="a first dimension of 4 where 5 samples were drawn"):
        score(mlp(), DataLoader(X, 5, sampler=Endless(), collate_fn=drop))
