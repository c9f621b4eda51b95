import math
from pathlib import Path

import pytest

from saal_fast.experiments.demo import Settings


@pytest.mark.parametrize("name", ["labels", "pool", "k", "epochs", "reference_samples"])
@pytest.mark.parametrize("count", [0, -3])
def test_counts_are_positive(name, count):
    with pytest.raises(ValueError, match=f"^{name} is {count}: expected at least 1$"):
        Settings(**{name: count})


@pytest.mark.parametrize("rho", [-0.05, math.inf, math.nan])
def test_rho_is_finite_and_not_negative(rho):
    with pytest.raises(ValueError, match=f"^rho is {rho}"):
        Settings(rho=rho)


def test_diversity_is_known():
    with pytest.raises(ValueError, match=r"'coreset': expected 'kmeans\+\+', 'badge' or None"):
        Settings(diversity="coreset")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_is_in_range(seed):
    with pytest.raises(ValueError, match=f"^seed is {seed}"):
        Settings(seed=seed)


def test_the_folder_may_begin_with_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(out=Path("~/demo")).out == tmp_path / "demo"
    assert Settings().out == Path("saal-fast-demo")
