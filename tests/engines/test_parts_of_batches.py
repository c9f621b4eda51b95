"""How batches fall into parts, and which of these are scored one by one."""

from __future__ import annotations

import logging

import families
import models
import pytest
import torch
from torch import nn

import saal_fast
from saal_fast import perturbation
from saal_fast.engines.branches import MAX_FREE_PARTS, SAMPLES_WORTH_A_PART, Diverged, Splits
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.problem import Problem, Result
from saal_fast.pools import Batch
from saal_fast.tasks import Classification


def result_of(batch):
    x = batch.args[0][:, 0]
    return Result(x, x, x, x.long(), x.long(), x > -1)


class Asking:
    """Scores batches whose samples hold the same number; counts them."""

    def __init__(self):
        self.sizes = []

    def __call__(self, batch):
        self.sizes.append(batch.size)
        x = batch.args[0][:, 0]
        kinds = x.unique()
        if len(kinds) > 1:
            raise Diverged([(x == kind).nonzero()[:, 0] for kind in kinds])
        return result_of(batch)


def batch_of(*numbers):
    x = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return Batch((x,), {}, len(x))


def test_parts_are_put_together_in_order():
    numbers = (3, 1, 3, 2, 1, 1, 3)
    splits, asking = Splits(), Asking()
    got = splits.score(asking, batch_of(*numbers))
    assert got.loss.tolist() == list(numbers)
    assert sorted(asking.sizes) == [1, 3, 3, 7]
    assert splits.by_themselves == 0


def test_small_parts_of_many_are_scored_one_by_one():
    alone = []

    def one_by_one(batch):
        alone.append(batch.size)
        return result_of(batch)

    splits, asking = Splits(one_by_one), Asking()
    numbers = (*range(MAX_FREE_PARTS), *(7,) * SAMPLES_WORTH_A_PART, 8, 8)
    got = splits.score(asking, batch_of(*numbers))
    assert got.loss.tolist() == list(numbers)
    assert asking.sizes == [len(numbers), SAMPLES_WORTH_A_PART]
    assert max(alone) < SAMPLES_WORTH_A_PART
    assert (splits.by_themselves, splits.samples) == (len(numbers) - SAMPLES_WORTH_A_PART, len(numbers))


def test_small_parts_of_a_few_are_parts_like_any_other():
    splits, asking = Splits(lambda batch: pytest.fail("expected no sample to be scored alone")), Asking()
    splits.score(asking, batch_of(*range(MAX_FREE_PARTS)))
    assert len(asking.sizes) == 1 + MAX_FREE_PARTS


class Dividing(Asking):
    """Divides a part by the next bit of its samples' numbers, until all are the same."""

    def __call__(self, batch):
        self.sizes.append(batch.size)
        x = batch.args[0][:, 0].long()
        for bit in range(10):
            odd = (x >> bit) % 2 == 1
            if odd.any() and not odd.all():
                raise Diverged([(~odd).nonzero()[:, 0], odd.nonzero()[:, 0]])
        return result_of(batch)


def test_dividing_ends_where_it_costs_more_than_it_gives():
    numbers = torch.randperm(256, generator=torch.Generator().manual_seed(0)).repeat_interleave(3).tolist()
    splits, dividing = Splits(result_of), Dividing()
    got = splits.score(dividing, batch_of(*numbers))
    assert got.loss.tolist() == numbers
    assert SAMPLES_WORTH_A_PART * len(dividing.sizes) < len(numbers) / 4 + SAMPLES_WORTH_A_PART * (MAX_FREE_PARTS + 3)
    assert splits.by_themselves == len(numbers)


def routed():
    torch.manual_seed(0)
    model = models.Function(lambda self, x: self.head(x) * (1 + x[0, :1].item()), head=nn.Linear(5, 3)).double()
    return model, torch.randn(12, 5, dtype=torch.float64)


def test_where_samples_all_differ_the_reference_goes_on(caplog):
    model, pool = routed()
    with caplog.at_level(logging.INFO, "saal_fast"):
        got = saal_fast.score(model, pool, details=True, batch_size=6)
    want = saal_fast.score(model, pool, details=True, engine="reference")
    assert got.engine == "reference"
    assert "from sample 6 on: 6 of 6 samples take branches that hardly any other takes" in got.fallback
    assert "at less cost" in caplog.text
    torch.testing.assert_close(got.perturbed_loss, want.perturbed_loss)


def test_an_engine_asked_for_by_name_scores_every_part():
    model, pool = routed()
    got = saal_fast.score(model, pool, details=True, engine="ghost", batch_size=6)
    assert (got.engine, got.fallback) == ("ghost", None)


def test_a_few_of_their_own_are_told_of():
    model, pool = routed()
    pool[:6, 0] = 0.5
    got = saal_fast.score(model, pool, details=True)
    assert got.engine == "ghost"
    assert got.fallback.startswith("6 of 12 samples take branches that hardly any other takes")


def test_packed_sequences_of_different_lengths_are_one_part():
    model, pool, _ = families.build("packed_lstm")
    assert len((pool != 0).sum(1).unique()) > 3
    read, calls = model.read, []
    model.read = lambda *of: (calls.append(len(calls)), read(*of))[1]
    ghost = Ghost(Problem.of(model, perturbation.make(0.05), Classification()))
    batch = Batch((pool,), {}, len(pool))
    ghost(batch)  # makes the plan
    calls.clear()
    ghost(batch)
    assert len(calls) == 2
