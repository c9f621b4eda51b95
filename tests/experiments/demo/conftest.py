import pytest
from demonstrations import small_settings

from saal_fast.experiments.demo import prepare


@pytest.fixture
def settings(tmp_path):
    return lambda **choices: small_settings(choices.pop("out", tmp_path / "out"), **choices)


@pytest.fixture
def task(settings):
    return lambda **choices: prepare(settings(**choices))
