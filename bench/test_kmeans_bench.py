"""k-means++ seeding: ours against the reference and scikit-learn's.

    pytest bench/test_kmeans_bench.py --benchmark-only

scikit-learn runs with one candidate a row (by default it tries several): the same algorithm as ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from saal_fast.kmeans import draw_uniforms, kmeans_plusplus, kmeans_plusplus_reference

SHAPES = {"[2000] k=10": ((2000, 1), 10), "[20000, 64] k=50": ((20_000, 64), 50)}


def ours(x: torch.Tensor, k: int) -> np.ndarray:
    return kmeans_plusplus(x, k, seed=0).numpy()


def reference(x: torch.Tensor, k: int) -> np.ndarray:
    return kmeans_plusplus_reference(x, k, uniforms=draw_uniforms(k, 0)).numpy()


def sklearn(x: torch.Tensor, k: int) -> np.ndarray:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    return cluster.kmeans_plusplus(x.numpy(), k, random_state=0, n_local_trials=1)[1]


@pytest.mark.parametrize("function", [ours, reference, sklearn], ids=lambda function: function.__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_kmeans_plusplus(benchmark: BenchmarkFixture, shape: str, function: Callable[..., np.ndarray]) -> None:
    size, k = SHAPES[shape]
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    rows = function(x, k)
    assert len(set(rows.tolist())) == k
    if function is not sklearn:  # its random numbers can't be matched
        assert rows.tolist() == reference(x, k).tolist()
    benchmark.group = shape
    benchmark.extra_info["torch threads"] = torch.get_num_threads()
    benchmark(function, x, k)
