import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saal_fast.models import memory


def size_of(model, x, beside=0):
    return memory.batch_size(lambda: model(x.clone()), x.device, beside)


def metered(work):
    with torch.no_grad(), memory.Meter() as meter:
        work()
    return meter.bytes


@pytest.fixture
def a_mebibyte(monkeypatch):
    monkeypatch.setattr(memory, "_budget", lambda device, most: 2**20)


def test_every_new_tensor_is_counted_and_no_view():
    x, linear = torch.zeros(1, 8), nn.Linear(8, 16)
    assert metered(lambda: linear(x)) == 16 * 4
    assert metered(lambda: linear(x).relu()) == 2 * 16 * 4
    assert metered(lambda: linear(x).relu_()) == 16 * 4
    assert metered(lambda: x.reshape(2, 4).T[1]) == 0
    assert metered(x.double) == 8 * 8


def test_the_size_is_the_budget_by_a_samples_bytes(a_mebibyte):
    linear, x = nn.Linear(8, 1024), torch.zeros(1, 8)  # 1024 numbers out; the copy of the input is 8
    assert size_of(linear, x) == 2**20 // (2 * 4 * (1024 + 8))
    assert size_of(linear, x, beside=2**16) == 2**20 // (2 * 4 * (1024 + 8) + 2**16)


def test_a_size_is_at_least_one_and_at_most_the_largest(a_mebibyte):
    assert size_of(nn.Linear(8, 4), torch.zeros(1, 8)) == memory.MAX_BATCH
    assert size_of(nn.Linear(8, 4), torch.zeros(1, 8), beside=2**40) == 1
    assert isinstance(size_of(nn.Linear(8, 4), torch.zeros(1, 8)), int)


def test_wider_models_get_smaller_batches(a_mebibyte):
    x = torch.zeros(1, 8)
    sizes = [size_of(nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2)), x) for width in (256, 1024, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_a_model_with_a_sparse_buffer(a_mebibyte):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("edges", torch.eye(4).to_sparse())

        def forward(self, x):
            return self.linear(torch.sparse.mm(self.edges * 2.0, x.mT).mT)

    assert size_of(Graph(), torch.zeros(1, 4)) == memory.MAX_BATCH


def test_the_budget_of_this_machine_is_sane():
    assert 2**20 <= memory._budget(torch.device("cpu")) <= memory.CPU_TARGET


def test_the_budget_where_free_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert 2**20 <= memory._budget(torch.device("cpu")) <= memory.CPU_TARGET
    monkeypatch.setattr(memory.os, "sysconf_names", {})
    assert memory._budget(torch.device("cpu")) == memory.CPU_TARGET


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_budget_of_a_gpu():
    free = torch.cuda.mem_get_info()[0]
    assert 0 < memory._budget(torch.device("cuda")) <= free


def test_which_errors_say_that_memory_ran_out():
    assert memory.exhausted(torch.OutOfMemoryError())
    assert memory.exhausted(MemoryError())
    assert not memory.exhausted(RuntimeError("vmap: no batching rule"))
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(10**17)
    assert memory.exhausted(too_much.value)


def test_freed_memory_is_kept_for_the_next_batch_and_given_back_after(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "core", lambda: SimpleNamespace(keep_freed_memory=asked.append))
    with memory.freed_is_kept(torch.device("cpu")):
        assert asked == [True]
    assert asked == [True, False]
    with memory.freed_is_kept(torch.device("cuda")):
        assert asked == [True, False]


def test_a_gpu_gets_larger_batches(a_mebibyte):
    model, x = nn.Linear(2, 2), torch.zeros(1, 2)
    assert memory.batch_size(lambda: model(x), torch.device("cpu")) == memory.MAX_BATCH
    assert memory.batch_size(lambda: model(x), torch.device("cuda")) == memory.MAX_BATCH_ON_CUDA


@pytest.mark.parametrize(
    ("size", "length", "expected"),
    [(64, 130, 44), (64, 128, 64), (64, 65, 33), (64, 5, 5), (1, 7, 1), (64, None, 64), (64, 0, 64)],
)
def test_batches_share_a_pool_evenly(size, length, expected):
    assert memory.evened(size, length) == expected
    if length:
        assert math.ceil(length / expected) == math.ceil(length / size)
