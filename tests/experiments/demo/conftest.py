import pytest

from saal_fast.experiments.demo import Settings, prepare


@pytest.fixture
def settings(tmp_path):
    """A demonstration on digits that takes a second or two."""

    def make(**choices):
        small = {
            "data": "digits",
            "labels": 20,
            "pool": 60,
            "k": 5,
            "epochs": 2,
            "reference_samples": 8,
            "out": tmp_path / "out",
        }
        return Settings(**{**small, **choices})

    return make


@pytest.fixture
def task(settings):
    return lambda **choices: prepare(settings(**choices))
