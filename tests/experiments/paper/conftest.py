import pytest

from saal_fast.experiments.paper.protocol import protocol
from saal_fast.experiments.paper.splits import load_split

SMALL = {"candidates": 40, "rounds": 2, "epochs": 1, "width": 2}


def small(dataset="digits", optimizer="adam", **changes):
    """A protocol of seconds."""
    return protocol("cpu", dataset, optimizer, **(SMALL | changes))


@pytest.fixture(scope="session")
def digits():
    return load_split("digits")


@pytest.fixture(name="small")
def small_protocol():
    return small


@pytest.fixture
def small_options():
    """The small protocol as options of the command line."""
    return ["--dataset", "digits", *(part for name, value in SMALL.items() for part in (f"--{name}", str(value)))]
