"""What people bring from other libraries works, or is refused with the sample's position and what to make of it."""

from collections import UserDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from saal_fast import score, select
from saal_fast.kmeans import kmeans_plusplus
from saal_fast.strategies import make

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def of_library(name, module, **members):
    """A class that passes for another library's."""
    return type(name, members.pop("bases", (object,)), {"__module__": module, **members})


class HuggingFace:
    """What `datasets.Dataset` answers to: rows as dicts of Python's own objects."""

    def __init__(self, **columns):
        self.columns = columns

    @property
    def column_names(self):
        return list(self.columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


def refused(pool, *words, error=TypeError):
    with pytest.raises(error) as caught:
        score(mlp(), pool)
    for word in words:
        assert word in str(caught.value)


def test_text_columns_of_hugging_face():
    data = HuggingFace(text=["a"] * 6, input=X.tolist(), path=["b"] * 6, label=[0] * 6)
    words = ["'text'", "remove_columns(['path', 'text'])", "set_format(\"torch\", columns=['input'])"]
    refused(data, "sample 0 of the pool, input 'text', is str", *words)
    refused(DataLoader([data[i] | {"input": X[i]} for i in range(6)], 2), "batch 0 of the DataLoader, input 'text'", *words)
    torch.testing.assert_close(score(mlp(), HuggingFace(input=X.tolist(), label=["a"] * 6)), score(mlp(), X))


def test_columns_that_forward_does_not_take():
    data = HuggingFace(input=X.tolist(), idx=list(range(6)), n=[1] * 6)
    refused(
        data, "'idx', 'n'", "remove_columns(['idx', 'n'])", "Sequential.forward, which takes input", "unexpected keyword"
    )
    refused({"pixels": X}, "'pixels'", "rename_column")
    refused([((x, x), 0) for x in X], "got 2 by position", "takes 2 positional arguments but 3 were given")
    refused({"train": HuggingFace(input=X), "test": HuggingFace(input=X)}, "input 'train'", "choose one split")


def web_loader(batches, *stages):
    kind = of_library("WebLoader", "webdataset.compat", bases=(IterableDataset,), __iter__=lambda self: iter(batches))
    loader = kind()
    loader.pipeline = [DataLoader(X), *stages]
    return loader


def test_web_loaders_yield_batches():
    torch.testing.assert_close(score(mlp(), web_loader([(X[:4], 0), (X[4:], 0)])), score(mlp(), X))
    refused(web_loader([X], "unbatched"), "DataLoader(pool, batch_size=None)")
    staged = DataLoader(web_loader([(X[:4], 0), (X[4:], 0)], "batched"), batch_size=None)
    torch.testing.assert_close(score(mlp(), staged), score(mlp(), X))


def test_iterables_of_batches():
    batches = [{"input": X[:4]}, {"input": X[4:]}]
    ray = of_library("_IterableFromIterator", "ray.data.iterator", __iter__=lambda self: iter(batches))()
    for pool in (ray, iter(batches), (batch for batch in batches)):
        refused(pool, "DataLoader(list(pool), batch_size=None)")
    torch.testing.assert_close(score(mlp(), DataLoader(list(ray), batch_size=None)), score(mlp(), X))
    refused(
        of_library("Dataset", "ray.data.dataset", iter_torch_batches=lambda self: iter(batches))(), "iter_torch_batches()"
    )
    flat = nn.Sequential(nn.Flatten(), *mlp())
    for model in (mlp(), flat):
        with pytest.raises(
            (ValueError, RuntimeError), match=r"sample 0 .* a batch of 3 samples .*DataLoader\(pool, batch_size=None"
        ):
            score(model, [X[:3], X[3:]])


class Frame:
    """A frame or a series, whose index is a name."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, name):
        raise KeyError(name)

    def to_numpy(self, dtype=None):
        return self.values.astype(dtype or self.values.dtype)


def test_frames():
    refused(Frame(X), "got test_foreign.Frame", ".to_numpy(")
    refused([X[0], Frame(X[1])], "sample 1 of the pool", ".to_numpy(")
    labels = np.arange(6) % 3
    torch.testing.assert_close(score(mlp(), X, labels=Frame(labels)), score(mlp(), X, labels=labels))


def test_scipy_sparse():
    sparse = pytest.importorskip("scipy.sparse")
    for kind in (sparse.csr_matrix, sparse.coo_array):
        refused(kind(np.eye(4)), ".toarray()")
        refused([X[0], kind(np.eye(4))], "sample 1 of the pool", ".toarray()")


@dataclass
class Sample:
    image: torch.Tensor
    label: int


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (torch.eye(4).to_sparse(), "call .to_dense()"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "call .to_padded_tensor(0)"),
        (of_library("Data", "torch_geometric.data.data", edge_index=None)(), "a graph has no sample dimension"),
        (np.array([X[0].numpy(), None], dtype=object), "numpy.stack"),
        (np.ma.masked_array(np.ones(4), [0, 1, 0, 0]), ".filled(0)"),
        (None, "Subset"),
        ("a.png", "opens it"),
        (b"bytes", "opens it"),
        (Path("a.png"), "opens it"),
        ({"x": {"y": X[0]}}, "a mapping in a mapping"),
        (Sample(X[0], 1), "vars(sample)"),
        (([[1, 2], [3]], 0), "pad lists of different lengths"),
        ({"input": [X[0], X[1]]}, "torch.stack"),
        (of_library("EagerTensor", "tensorflow", __array__=lambda self: np.ones(4))(), "numpy.asarray"),
    ],
    ids=lambda v: type(v).__name__,
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_samples(value, word):
    pool = [{"input": X[0]}, value] if isinstance(value, dict) else [X[0], value]
    refused(pool, "sample 1 of the pool", word)


def test_things_that_are_no_pool():
    refused(bytearray(b"ab"), "got bytearray")
    refused(Path("images"), "opens it")
    refused(HuggingFace, "the class itself")
    graph = of_library("Data", "torch_geometric.data.data", __len__=lambda s: 2, __getitem__=lambda s, k: X)()
    refused(graph, "a graph has no sample dimension")
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
    refused(image, "ToTensor")
    torch.testing.assert_close(score(mlp(), UserDict(input=X)), score(mlp(), X))


def test_numbers_of_another_type():
    refused((X * 9).to(torch.uint8), "got torch.uint8", "x.to(torch.float32)", "scaled as in training")


class Squeezes(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.body, self.inside = mlp(), inside

    def forward(self, x):
        return torch.cat([self.body(x.squeeze())], 1) if self.inside else self.body(x).squeeze()


@pytest.mark.parametrize(("inside", "error"), [(False, ValueError), (True, IndexError)])
def test_a_model_that_squeezes_the_batch_away(inside, error):
    with pytest.raises(error, match=r"(?s)samples go in one at a time.*\.squeeze\(-1\)"):
        score(Squeezes(inside), X)


def test_arrays_of_negative_strides():
    x, labels, weights = X.numpy()[::-1], (np.arange(6) % 3)[::-1], np.arange(1.0, 7)[::-1]
    torch.testing.assert_close(score(mlp(), x, labels=labels), score(mlp(), x.copy(), labels=labels.copy()))
    torch.testing.assert_close(score(mlp(), {"input": x}), score(mlp(), X).flip(0))
    for options in ({"weights": weights}, {"initial": np.array([4, 2])[::-1]}, {}):
        plain = {name: value.copy() for name, value in options.items()}
        assert torch.equal(kmeans_plusplus(x, 3, seed=0, **options), kmeans_plusplus(x.copy(), 3, seed=0, **plain))


@pytest.mark.parametrize("seed", [np.random.RandomState(0), np.random.default_rng(0)])
def test_generators_of_numpy_as_seeds(seed):
    hint = r"int\(seed\.\w+\(2\*\*31\)\)"
    for call in (
        lambda: kmeans_plusplus(X, 2, seed=seed),
        lambda: select(mlp(), X, 2, diversity="kmeans++", seed=seed),
        lambda: make("random").select(mlp(), X, 2, generator=seed),
        lambda: make("badge").select(mlp(), X, 2, generator=seed),
    ):
        with pytest.raises(TypeError, match=hint):
            call()
    with pytest.raises(TypeError, match=r"got int; torch\.Generator\(\)\.manual_seed"):
        make("random").select(mlp(), X, 2, generator=3)
