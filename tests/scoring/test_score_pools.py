"""Every kind of pool gives the same scores."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from saal_fast import score

ENGINES = ["ghost", "vmap", "reference"]
FP64 = {"rtol": 1e-9, "atol": 1e-12}


def mlp(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def inputs(n=7, dtype=torch.float64):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


class Pairs(Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], -1  # a label that no one may look at


class Flow(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


POOLS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "dataset": TensorDataset,
    "pairs": Pairs,
    "list": list,
    "tuple": lambda x: tuple(zip(x, range(len(x)), strict=True)),
    "flow": Flow,
    "loader": lambda x: DataLoader(Pairs(x), batch_size=3),
    "loader of a flow": lambda x: DataLoader(Flow(x), batch_size=3),
    "dict": lambda x: {"input": x, "labels": torch.full((len(x),), -1)},
    "list of dicts": lambda x: [{"input": row, "label": -1} for row in x],
    "loader of dicts": lambda x: DataLoader([{"input": row, "y": -1} for row in x], batch_size=3) if len(x) else [],
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("n", [1, 7])
def test_every_kind_of_pool_gives_the_same_scores(pool, n):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, input):
            return {"logits": self.body(input)}

    x = inputs(n)
    for size in ("auto", 2):
        torch.testing.assert_close(score(Named(), pool(x), batch_size=size), score(mlp(), x), **FP64)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_pool_gives_nothing(pool, dtype):
    scores = score(mlp(dtype), pool(inputs(0, dtype)))
    assert (scores.shape, scores.dtype) == ((0,), dtype)
    details = score(mlp(dtype), pool(inputs(0, dtype)), details=True, labels=[])
    assert len(details) == len(details.label) == len(details.sharpness) == len(details.finite) == 0


def test_a_loader_keeps_its_own_order():
    x = inputs(20)
    order = torch.randperm(20).tolist()
    torch.testing.assert_close(score(mlp(), DataLoader(x, batch_size=4, sampler=order)), score(mlp(), x)[order], **FP64)


def test_batches_of_different_shapes_of_a_loader():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.words = mlp(), nn.Embedding(4, 4).double()

        def forward(self, ids, mask=None):
            return self.body((self.words(ids) * mask[..., None]).mean(1))

    model = Mean()
    texts = [torch.arange(n) % 4 for n in (3, 3, 5, 2, 2, 2, 7)]
    alone = torch.cat([score(model, {"ids": t[None], "mask": torch.ones(1, len(t))}) for t in texts])
    loader = DataLoader([{"ids": t, "mask": torch.ones(len(t))} for t in texts], batch_sampler=[[0, 1], [2], [3, 4, 5], [6]])
    for engine in ENGINES:
        torch.testing.assert_close(score(model, loader, engine=engine, batch_size=2), alone, **FP64)
