"""What people bring that is no input for a model, and what to make of it.

Objects of other libraries are known by what they can do, so that none of these libraries is imported.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

_TEXT = (str, bytes, bytearray, memoryview)
_DEFAULT = "of an image: a transform such as torchvision's ToTensor; of a text: a tokenizer"
_OF_LISTS = (
    "list(pool) if it yields samples, DataLoader(list(pool), batch_size=None) if it yields batches (as Ray's "
    "iter_torch_batches does)"
)


def mend(value: Any) -> str:
    """What to do with an object that is no dense tensor, array or number."""
    if isinstance(value, torch.Tensor):
        return f"it is {_layout(value)}"
    if value is None:
        return "leave out the samples that a data set skips by None, as torch.utils.data.Subset does"
    if isinstance(value, (*_TEXT, os.PathLike)):
        return "of a text: a tokenizer; of a file's name: a Dataset whose __getitem__ opens it"
    if isinstance(value, np.ndarray):
        return "arrays of one shape in an array of objects: numpy.stack; a table of named columns: one array a column"
    if is_graph(value):
        return "a graph has no sample dimension: pad graphs to one size, as PyG's to_dense_batch and to_dense_adj do"
    return _of_table(value) or _of_container(value) or _DEFAULT


def refusal(pool: Any) -> str | None:
    """What to do with an object that has a length and an index, and still is no pool; None for a pool."""
    if isinstance(pool, type):
        return "it is the class itself, make an object of it"
    if isinstance(pool, Dataset):
        return None
    if isinstance(pool, _TEXT) or is_graph(pool) or _of_table(pool):
        return mend(pool)
    return None


def of_iterable(pool: Any) -> str:
    """What to do with an object that has no length or index."""
    library = type(pool).__module__.partition(".")[0]
    if isinstance(pool, (*_TEXT, os.PathLike)) or is_graph(pool) or _of_table(pool):
        return f"; {mend(pool)}"
    if hasattr(pool, "iter_torch_batches"):
        return "; DataLoader(list(pool.iter_torch_batches()), batch_size=None)"
    if library == "datasets":
        return '; pool.with_format("torch") makes an IterableDataset of it'
    if isinstance(pool, Iterator):
        return f"; an iterator would be used up by scoring, so make a list of it: {_OF_LISTS}"
    if isinstance(pool, Iterable):
        return f"; an IterableDataset says that it yields samples, a DataLoader that it yields batches. Or {_OF_LISTS}"
    return f"; {mend(pool)}" if library == "PIL" else ""


def of_columns(rest: Collection[str], bad: Collection[str]) -> str:
    """What to do with the columns `bad` of samples that are mappings, of which `rest` are inputs."""
    kept = f', or set_format("torch", columns={sorted(rest)})' if rest else ""
    return (
        f"leave {', '.join(map(repr, sorted(bad)))} out of the samples (of a Hugging Face Dataset: "
        f"remove_columns({sorted(bad)}){kept}), or make numbers of it"
    )


def is_words(value: Any) -> bool:
    """Whether `value` is a text, or a list that begins with one, as collated texts do."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, (*_TEXT, os.PathLike))


def is_graph(value: Any) -> bool:
    """Whether `value` is a graph, or a batch of graphs, of PyTorch Geometric."""
    known = type(value).__module__.partition(".")[0] == "torch_geometric" or hasattr(value, "edge_index")
    return known and not isinstance(value, torch.utils.data.DataLoader | Dataset)


def type_name(value: Any) -> str:
    """The name of an object's class, with its module."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _layout(tensor: torch.Tensor) -> str:
    if tensor.is_nested:
        return "a nested tensor: call .to_padded_tensor(0)"
    if tensor.is_quantized:
        return "quantized: call .dequantize()"
    return f"{str(tensor.layout).removeprefix('torch.')}: call .to_dense()"


def _of_table(value: Any) -> str:
    """Of frames, series, sparse matrices and the like, whose index is no position of a sample."""
    if hasattr(value, "to_numpy"):
        return 'make an array of it: .to_numpy(dtype="float32")'
    if hasattr(value, "to_pydict"):
        return "make a mapping of it, {name: column.to_numpy()} for each column"
    if hasattr(value, "toarray"):
        return "make a dense array of it: .toarray()"
    return ""


def _of_container(value: Any) -> str:
    if hasattr(value, "column_names"):
        return "choose one split of a DatasetDict, as in pool['train']"
    if isinstance(value, Mapping):
        return "a mapping in a mapping is no keyword of a model: give its tensors names of their own"
    if is_dataclass(value):
        return "a sample is a tensor, a tuple (input, label) or a mapping: vars(sample) is one"
    if isinstance(value, tuple | list) and any(isinstance(part, torch.Tensor | np.ndarray) for part in value):
        return "torch.stack joins samples of one shape, torch.nn.utils.rnn.pad_sequence those of several lengths"
    if hasattr(value, "__array__") and type(value).__module__.partition(".")[0] != "PIL":
        return "make an array of it: numpy.asarray"
    return ""
