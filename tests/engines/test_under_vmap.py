"""What is rescued under `vmap`, and what is not."""

from __future__ import annotations

import signal

import pytest
import torch

from saal_fast.engines.under_vmap import Births, UnderVmap

MASKS = torch.tensor([[True, False], [False, True]])


def nonzero_where(run):
    """`torch.nonzero` of each sample's mask, where torch's own call of it does what `run` does."""
    mode = UnderVmap(Births(set()))

    def of_one(mask):
        return mode.intercept(torch.nonzero, (mask,), {}, run)

    return torch.func.vmap(of_one)(MASKS)


def refused():
    raise RuntimeError("vmap: nonzero gives a dynamic shape")


def test_what_vmap_refuses_is_rescued():
    assert nonzero_where(refused).tolist() == [[[0]], [[1]]]


def test_what_a_signals_handler_raises_is_not_taken_for_a_refusal():
    def strike(*_):
        raise RuntimeError("struck")

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(RuntimeError, match="struck"):
            nonzero_where(lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_want_of_memory_is_not_taken_for_a_refusal():
    def want():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        nonzero_where(want)
