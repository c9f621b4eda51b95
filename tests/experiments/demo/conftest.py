import io
from contextlib import redirect_stdout
from typing import NamedTuple

import pytest
import torch

from saal_fast.experiments.demo import Partition, Result, Settings, prepare, run

SMALL = {"data": "digits", "labels": 20, "pool": 60, "k": 5, "epochs": 2, "reference_samples": 8}


@pytest.fixture
def settings(tmp_path):
    """Settings of a demonstration on digits that takes a second."""
    return lambda **choices: Settings(**{**SMALL, "out": tmp_path / "out", **choices})


@pytest.fixture
def partition(settings):
    return lambda **choices: prepare(settings(**choices))


class Demonstration(NamedTuple):
    partition: Partition
    result: Result
    printed: str
    states: tuple[torch.Tensor, torch.Tensor]
    """The state of torch's global generator before and after."""


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory):
    """One small run, which several tests read."""
    partition = prepare(Settings(**SMALL, out=tmp_path_factory.mktemp("demo") / "out"))
    before = torch.get_rng_state()
    with redirect_stdout(io.StringIO()) as printed:
        result = run(partition)
    return Demonstration(partition, result, printed.getvalue(), (before, torch.get_rng_state()))
