import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from transformers import BatchEncoding

from saal_fast.pools import Stream

CPU = torch.device("cpu")
COUNTS, SIZES = st.integers(0, 23), st.integers(1, 9)


class Items(Dataset):
    """A map-style dataset of whatever it is given; counts how often each item is read."""

    def __init__(self, items):
        self.items, self.reads = items, [0] * len(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.items[index]


class Flow(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class SizedFlow(Flow):
    def __len__(self):
        return len(self.items)


def walk(pool, size=4, device=CPU):
    return list(Stream(pool, device).batches(size))


def only_input(pool, size=4):
    """Join the batches of a pool whose samples have one positional input."""
    batches = walk(pool, size)
    assert all(len(batch.args) == 1 and not batch.kwargs for batch in batches)
    return torch.cat([batch.args[0] for batch in batches])


def numbered(count):
    return torch.arange(count * 6, dtype=torch.float32).reshape(count, 2, 3)


def pools_of(x):
    """Give pools of every kind that hold the samples `x`, and what each says of its length."""
    y = torch.zeros(len(x))
    rows = list(x)
    kinds = {
        "tensor": (x, True),
        "array": (x.numpy(), True),
        "list": (rows, True),
        "tuple": (tuple(rows), True),
        "list of arrays": ([row.numpy() for row in rows], True),
        "list of pairs": ([(row, 7) for row in rows], True),
        "list of triples": ([[row, torch.tensor(7), "name"] for row in rows], True),
        "TensorDataset": (TensorDataset(x, y), True),
        "TensorDataset of one": (TensorDataset(x), True),
        "Subset": (Subset(TensorDataset(x, y), range(len(x))), True),
        "ConcatDataset": (ConcatDataset([TensorDataset(x[:2], y[:2]), TensorDataset(x[2:], y[2:])]), True),
        "Dataset": (Items(rows), True),
        "IterableDataset": (Flow([(row, 7) for row in rows]), False),
        "IterableDataset with a length": (SizedFlow(rows), True),
    }
    return [pytest.param(pool, known, id=name) for name, (pool, known) in kinds.items()]


# --- order and completeness -------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "known"), pools_of(numbered(5)))
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_every_kind_of_pool_gives_its_samples_in_order(pool, known, size):
    stream = Stream(pool, CPU)
    assert stream.length == (5 if known else None)
    first = stream.peek()
    batches = list(stream.batches(size))
    assert torch.equal(torch.cat([batch.args[0] for batch in batches]), numbered(5))
    assert [batch.size for batch in batches] == [size] * (5 // size) + [5 % size] * (5 % size > 0)
    assert [batch.start for batch in batches] == list(range(0, 5, size))
    assert (first.size, first.start) == (1, 0)
    assert torch.equal(first.args[0], numbered(5)[:1])


@pytest.mark.parametrize(("pool", "known"), pools_of(numbered(0)))
def test_every_kind_of_empty_pool_gives_nothing(pool, known):
    stream = Stream(pool, CPU)
    assert stream.length == (0 if known else None)
    assert stream.peek() is None
    assert list(stream.batches(3)) == []


@given(count=COUNTS, size=SIZES)
def test_a_tensor_of_any_length_in_batches_of_any_size(count, size):
    batches = walk(numbered(count), size)
    joined = torch.cat([numbered(0), *(batch.args[0] for batch in batches)])
    assert torch.equal(joined, numbered(count))
    assert all(batch.size == size for batch in batches[:-1])
    assert all(len(batch.args[0]) == batch.size for batch in batches)


@given(count=COUNTS, sizes=st.tuples(SIZES, SIZES), peek=st.booleans(), flow=st.booleans(), drop=st.booleans())
def test_a_loader_of_any_batch_size(count, sizes, peek, flow, drop):
    size, loader_size = sizes
    rows = [(row, 1) for row in numbered(count)]
    dataset = SizedFlow(rows) if flow else Items(rows)
    loader = DataLoader(dataset, batch_size=loader_size, drop_last=drop)
    expected = count - count % loader_size if drop else count
    stream = Stream(loader, CPU)
    assert stream.length == (None if flow and drop else expected)
    if peek:
        assert (stream.peek() is None) == (expected == 0)
    batches = list(stream.batches(size))
    joined = torch.cat([numbered(0), *(batch.args[0] for batch in batches)])
    assert torch.equal(joined, numbered(count)[:expected])
    assert all(batch.size == size for batch in batches[:-1])
    assert [batch.start for batch in batches] == list(range(0, expected, size))


@given(lengths=st.lists(st.integers(1, 3), max_size=12), size=SIZES, loader_size=st.integers(1, 4))
def test_batches_of_different_shapes_are_never_joined(lengths, size, loader_size):
    texts = [torch.full((length,), index) for index, length in enumerate(lengths)]
    pad = torch.nn.utils.rnn.pad_sequence
    loader = DataLoader(texts, loader_size, collate_fn=lambda rows: pad(rows, batch_first=True, padding_value=-1))
    batches = walk(loader, size)
    order = [row[0].item() for batch in batches for row in batch.args[0]]
    assert order == list(range(len(lengths)))
    assert [batch.start for batch in batches] == [int(batch.args[0][0, 0]) for batch in batches]
    for batch in batches:
        for index, row in enumerate(batch.args[0], batch.start):
            drawn_with = lengths[index - index % loader_size :][:loader_size]
            assert row.tolist() == [index] * lengths[index] + [-1] * (max(drawn_with) - lengths[index])


@settings(max_examples=20)
@given(count=st.integers(1, 30), size=SIZES, seed=st.integers(0, 100))
def test_a_shuffling_loader_keeps_its_own_order(count, size, seed):
    def loader():
        return DataLoader(range(count), 4, shuffle=True, generator=torch.Generator().manual_seed(seed))

    expected = torch.cat(list(loader()))
    stream = Stream(loader(), CPU)
    assert stream.peek().args[0].item() == expected[0]
    assert torch.equal(torch.cat([batch.args[0] for batch in stream.batches(size)]), expected)


def test_a_loader_with_workers():
    loader = DataLoader(Items(list(numbered(7))), 2, num_workers=1)
    assert torch.equal(only_input(loader, 3), numbered(7))


def test_a_loader_whose_length_is_not_known():
    by_itself = DataLoader([numbered(3), numbered(2)], batch_size=None)
    own_batches = DataLoader(Items(list(numbered(5))), batch_sampler=[[0, 1, 2], [3], [4]])
    for loader in (by_itself, own_batches):
        assert Stream(loader, CPU).length is None
    assert torch.equal(only_input(by_itself), torch.cat([numbered(3), numbered(2)]))
    assert torch.equal(only_input(own_batches), numbered(5))


def test_each_sample_is_read_once():
    pool = Items(list(numbered(5)))
    stream = Stream(pool, CPU)
    stream.peek(), stream.peek()
    list(stream.batches(2))
    assert pool.reads == [1] * 5


def test_a_stream_is_one_pass():
    stream = Stream(numbered(2), CPU)
    next(stream.batches(1))
    for again in (stream.peek, lambda: stream.batches(1)):
        with pytest.raises(RuntimeError, match="one pass"):
            again()


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one(size):
    with pytest.raises(ValueError, match=f"at least 1, got {size}"):
        Stream(numbered(2), CPU).batches(size)


# --- inputs and labels ------------------------------------------------------------------------------

Pair = namedtuple("Pair", "image label")
ROW = torch.ones(3)


@pytest.mark.parametrize(
    "sample",
    [
        ROW,
        (ROW,),
        [ROW],
        (ROW, 1),
        (ROW, "cat", None),
        Pair(ROW, 1),
        ((ROW,), 1),
        ([1.0, 1.0, 1.0], 1),
        ((1.0, 1.0, 1.0), 1),
        np.ones(3, dtype=np.float32),
    ],
)
def test_one_positional_input(sample):
    assert torch.equal(only_input([sample, sample]), torch.ones(2, 3))


@pytest.mark.parametrize("number", [1.0, np.float32(1), torch.tensor(1.0), (1.0, 0)])
def test_numbers_as_samples(number):
    assert torch.equal(only_input([number] * 3), torch.ones(3))


def test_several_positional_inputs():
    pool = [((ROW * i, torch.tensor(i)), "label") for i in range(3)]
    (batch,) = walk(pool)
    assert [tuple(arg.shape) for arg in batch.args] == [(3, 3), (3,)]
    assert batch.args[1].tolist() == [0, 1, 2]
    loaded = walk(DataLoader(pool, batch_size=2))
    assert all(torch.equal(a, b) for a, b in zip(loaded[0].args, batch.args, strict=True))


LABELS = ["label", "labels", "label_ids", "target", "targets", "y"]


@pytest.mark.parametrize("key", LABELS)
def test_keyword_inputs_without_labels(key):
    sample = {"input_ids": [5, 6], "mask": torch.ones(2), key: "no tensor"}
    for pool in ([sample] * 3, [(sample, 1)] * 3, DataLoader([sample] * 3, collate_fn=stack_ids)):
        (batch,) = walk(pool)
        assert batch.args == ()
        assert "input_ids" in batch.kwargs
        assert key not in batch.kwargs
        assert batch.kwargs["input_ids"].tolist() == [[5, 6]] * 3


def stack_ids(samples):
    return {"input_ids": torch.tensor([s["input_ids"] for s in samples]), "labels": ["no tensor"], "y": None}


@given(count=COUNTS, size=SIZES)
def test_a_mapping_of_tensors(count, size):
    pool = {"input_ids": numbered(count), "mask": numbered(count)[:, 0].numpy(), "labels": list(range(count))}
    stream = Stream(pool, CPU)
    assert stream.length == count
    batches = list(stream.batches(size))
    assert all(set(batch.kwargs) == {"input_ids", "mask"} for batch in batches)
    for key in ("input_ids", "mask"):
        joined = [row for batch in batches for row in batch.kwargs[key].tolist()]
        assert joined == pool[key].tolist()


def test_a_batch_encoding():
    pool = BatchEncoding({"input_ids": [[1, 2], [3, 4]], "attention_mask": torch.ones(2, 2)})
    (batch,) = walk(pool)
    assert batch.kwargs["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch.kwargs["attention_mask"].tolist() == [[1, 1], [1, 1]]


# --- memory and kinds of tensor ---------------------------------------------------------------------


def test_a_batch_owns_its_memory():
    x = numbered(4)
    for pool in (x, x.numpy(), {"x": x}, list(x), TensorDataset(x), DataLoader([x], batch_size=None)):
        for size in (1, 4):
            stream = Stream(pool, CPU)
            for batch in (stream.peek(), *stream.batches(size)):
                (batch.args or tuple(batch.kwargs.values()))[0].fill_(-1)
    assert torch.equal(x, numbered(4))


@pytest.mark.parametrize("scoring_in_inference_mode", [False, True])
def test_inference_tensors_become_ordinary_ones(scoring_in_inference_mode):
    with torch.inference_mode():
        x = numbered(4) + 0
    for pool in (x, list(x), {"x": x}, DataLoader(TensorDataset(x))):
        with torch.inference_mode(scoring_in_inference_mode):
            for batch in walk(pool, 3):
                assert not any(t.is_inference() for t in (*batch.args, *batch.kwargs.values()))


def test_autograd_history_is_left_behind():
    x = torch.ones(3, 2, requires_grad=True)
    for pool in (x, x * 2, list(x * 2), torch.nn.Parameter(x)):
        assert not only_input(pool).requires_grad


@pytest.mark.parametrize("array", [np.arange(6.0)[::-1], np.arange(6.0)[::2], np.arange(6.0).astype(">f8")])
def test_arrays_that_torch_cannot_share(array):
    assert only_input(array).tolist() == array.tolist()
    assert only_input([array, array])[1].tolist() == array.tolist()


def test_read_only_arrays_do_not_warn():
    array = np.arange(6.0)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pool in (array, [array, array], {"x": array}):
            walk(pool)


def test_batches_go_to_the_device():
    for pool in (numbered(3), list(numbered(3)), DataLoader(numbered(3), 2)):
        stream = Stream(pool, torch.device("meta"))
        assert all(batch.args[0].device.type == "meta" for batch in (stream.peek(), *stream.batches(2)))


# --- what is refused, and how it is said ------------------------------------------------------------


class NoLength(Dataset):
    def __getitem__(self, index):
        return ROW


class OnlyIterable:
    def __iter__(self):
        return iter([ROW])


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("text", "got str"),
        (b"text", "got bytes"),
        (None, "got NoneType"),
        (3, "got int"),
        ((row for row in [ROW]), "got generator.*make a list"),
        (OnlyIterable(), "OnlyIterable; an IterableDataset says"),
        (NoLength(), "got .*NoLength"),
        (np.array(["a", "b"]), "the pool is numpy.ndarray; expected a dense tensor"),
        ({"texts": ["a", "b"]}, "the pool, input 'texts', is list; expected a dense tensor"),
        ({0: ROW}, "the key 0; expected names"),
        (torch.eye(3).to_sparse(), "the pool is torch.Tensor; expected a dense tensor"),
    ],
)
def test_things_that_are_no_pool(pool, message):
    with pytest.raises(TypeError, match=message):
        Stream(pool, CPU)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (torch.tensor(1.0), r"the pool is \[\] float32"),
        ({"a": torch.ones(3, 2), "b": torch.ones(4)}, r"the pool is a: \[3, 2\] float32, b: \[4\] float32"),
        ({"a": torch.ones(3), "b": torch.tensor(1)}, r"b: \[\] int64"),
        ({"label": ROW}, "the pool holds no input"),
        ({}, "the pool holds no input"),
    ],
)
def test_inconsistent_columns(pool, message):
    with pytest.raises(ValueError, match=message):
        Stream(pool, CPU)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("a text", "sample 2 of the pool is str; expected .*tokenizer"),
        (("a text", 1), "sample 2 of the pool is str"),
        (object(), "sample 2 of the pool is object; expected .*ToTensor"),
        (None, "sample 2 of the pool is NoneType"),
        ({"x": ROW, "path": "a.png"}, "sample 2 of the pool, input 'path', is str"),
        ((ROW, (ROW, "a"))[1:], "sample 2 of the pool, input 1, is str"),
        (([[1, 2], [3]], 0), "sample 2 of the pool is list; expected .*expected sequence of length 2"),
        ([1.0, 2.0], "sample 2 of the pool is a list of plain numbers"),
        ([[1.0, 2.0], [3.0, 4.0]], "sample 2 of the pool is a list of plain numbers"),
    ],
)
def test_samples_that_are_no_input_are_named(sample, message):
    for pool in ([ROW, ROW, sample], Items([ROW, ROW, sample]), Flow([ROW, ROW, sample])):
        with pytest.raises(TypeError, match=message):
            walk(pool)


def test_a_pil_image_is_named():
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
    with pytest.raises(TypeError, match=r"sample 0 of the pool is PIL\.Image\.Image; expected .*ToTensor"):
        Stream([(image, 0)], CPU).peek()


@pytest.mark.parametrize("size", [1, 4])  # whatever the batch size, the same pool gives the same error
@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            torch.ones(4),
            r"sample 0 of the pool is \[3\] float32, sample 2 of the pool is \[4\] float32; pad or resize",
        ),
        (torch.ones(3, dtype=torch.float64), r"sample 2 of the pool is \[3\] float64"),
        ({"x": ROW}, r"sample 2 of the pool is x: \[3\]"),
        (((ROW, ROW), 0), r"sample 2 of the pool is 0: \[3\] float32, 1: \[3\] float32"),
    ],
)
def test_samples_that_differ_are_named(other, message, size):
    for pool in ([ROW, ROW, other], Items([ROW, ROW, other]), Flow([ROW, ROW, other])):
        with pytest.raises(ValueError, match=message):
            walk(pool, size)


def test_an_empty_sample():
    with pytest.raises(ValueError, match="sample 0 of the pool is an empty tuple"):
        walk([()])


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        (
            lambda rows: {"a": torch.stack(rows), "b": ROW[:1]},
            r"batch 0 .*a: \[2, 3\] float32, b: \[1\] float32",
        ),
        (lambda rows: torch.tensor(1.0), r"batch 0 of the DataLoader is \[\] float32"),
        (lambda rows: torch.stack(rows[:1]), "batch 0 .*first dimension of 1 where 2 samples were drawn"),
        (lambda rows: rows, "batch 0 .*first dimension of 3 where 2 samples were drawn"),
        (lambda rows: [(row, row[0]) for row in rows], "share their first dimension; batch 0 of"),
    ],
)
def test_a_collate_fn_that_gives_no_batch(collate, message):
    with pytest.raises(ValueError, match=message):
        walk(DataLoader([ROW] * 5, 2, collate_fn=collate))


def test_a_collate_fn_of_an_iterable_dataset_may_give_less_but_not_more():
    assert len(only_input(DataLoader(Flow([ROW] * 5), 2, collate_fn=lambda rows: torch.stack(rows[:1])))) == 3
    with pytest.raises(ValueError, match="first dimension of 3 where 2"):
        walk(DataLoader(Flow([ROW] * 5), 2, collate_fn=lambda rows: rows))
