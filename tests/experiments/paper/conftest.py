from dataclasses import replace

import pytest

from saal_fast.experiments.paper.data import dataset
from saal_fast.experiments.paper.protocol import protocol


def small(preset="cpu", dataset="digits", optimizer="adam", **changes):
    """A protocol of seconds."""
    seconds = {"rounds": 2, "epochs": 1, "width": 2, "candidates": 40}
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(protocol(preset, dataset, optimizer, **(seconds | given)), k=5, tested=50)


@pytest.fixture(scope="session")
def digits():
    return dataset("digits")


@pytest.fixture(name="small")
def small_protocol():
    return small


@pytest.fixture
def as_small(monkeypatch):
    """The command line runs the small protocol."""
    monkeypatch.setattr("saal_fast.experiments.paper.commands.preset_of", small)
