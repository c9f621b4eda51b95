"""k-means++ seeding: ours against scikit-learn, faiss and scikit-activeml, and our own plain passes.

    OMP_NUM_THREADS=1 pytest bench/test_kmeans_bench.py --benchmark-only

Ours are medians of nine seeds; a contestant that takes seconds runs once. scikit-learn runs with one candidate a row (by
default it tries several): the same algorithm as ours. BADGE's embeddings are materialised for scikit-activeml, which can't
take factors, before the clock starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from saal_fast.kmeans import kmeans_plusplus

Work = tuple[Any, int]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def tight(n: int, dim: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    return normal(100, dim)[generator.integers(0, 100, n)] + 0.01 * generator.standard_normal((n, dim), dtype=np.float32)


def gradients(n: int, classes: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Class residuals and features as a network with ReLU has them."""
    p = torch.from_numpy(2 * normal(n, classes)).softmax(1)
    a = p - torch.nn.functional.one_hot(p.argmax(1), classes)
    return a.numpy(), np.maximum(np.random.default_rng(2).standard_normal((n, dim), dtype=np.float32), 0)


WORK: dict[str, Callable[[], Work]] = {
    "50000 x 512, k=1000, spread out": lambda: (normal(50_000, 512), 1000),
    "50000 x 512, k=1000, 100 tight clusters": lambda: (tight(50_000, 512), 1000),
    "20000 x (10 ⊗ 256), k=500": lambda: (gradients(20_000, 10, 256), 500),
    "2000 x 1, k=10": lambda: (normal(2000, 1), 10),
    "1000000 x 1, k=1000": lambda: (normal(1_000_000, 1), 1000),
    "4000 x 64, k=1000": lambda: (normal(4000, 64), 1000),
}


def ours(x: Any, k: int, seed: int) -> Any:
    return kmeans_plusplus(x, k, seed=seed)


def plain(x: Any, k: int, seed: int) -> Any:
    return kmeans_plusplus(x, k, seed=seed, algorithm="plain")


def sklearn_f32(x: np.ndarray, k: int, seed: int) -> Any:
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    return cluster.kmeans_plusplus(x, k, random_state=seed, n_local_trials=1)[1]


def sklearn_f64(x: np.ndarray, k: int, seed: int) -> Any:
    return sklearn_f32(x, k, seed)


def faiss(x: np.ndarray, k: int, seed: int) -> Any:
    module = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    clustering = module.Clustering(x.shape[1], k)
    clustering.niter, clustering.seed = 0, seed
    clustering.max_points_per_centroid = len(x)  # no subsample
    clustering.init_method = module.ClusteringInitMethod_KMEANS_PLUS_PLUS
    clustering.train(x, module.IndexFlatL2(x.shape[1]))
    return module.vector_to_array(clustering.centroids).reshape(k, -1)


def skactiveml(x: np.ndarray, k: int, seed: int) -> Any:
    badge = pytest.importorskip("skactiveml.pool._badge", reason="scikit-activeml is not installed")
    state = np.random.RandomState(seed)
    weights = badge._d_2(x, [])
    chosen = [int(np.argmax(weights))]
    for _ in range(k - 1):  # the loop of its `Badge.query`, which does the model's part as well
        weights = badge._d_2(x, chosen[-1:], weights)
        p = weights.astype(np.float64)
        chosen.append(int(state.choice(len(x), 1, replace=False, p=p / p.sum())[0]))
    return chosen


CONTESTANTS = {f.__name__: f for f in (ours, plain, sklearn_f32, sklearn_f64, faiss, skactiveml)}


def prepared(name: str, x: Any) -> Any:
    if name == "skactiveml":
        a, h = x
        return (a[:, :, None] * h[:, None, :]).reshape(len(a), -1)
    return x.astype(np.float64) if name == "sklearn_f64" else x


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("work", WORK)
def test_seeding(benchmark: BenchmarkFixture, work: str, contestant: str) -> None:
    x, k = WORK[work]()
    if isinstance(x, tuple) != (contestant == "skactiveml") and contestant not in ("ours", "plain"):
        pytest.skip("scikit-activeml has the embeddings to itself")
    if contestant == "faiss" and x.shape[1] == 1:
        pytest.skip("faiss is for vectors")
    function, data, seeds = CONTESTANTS[contestant], prepared(contestant, x), itertools.count()
    large = len(x[0] if isinstance(x, tuple) else x) * k >= 1_000_000
    if contestant in ("ours", "plain") or not large:
        rows = function(data, k, 0)
        if contestant != "faiss":  # it gives centres, not rows
            assert len(np.unique(np.asarray(rows))) == k
    benchmark.group = work
    benchmark.extra_info["torch threads"] = torch.get_num_threads()
    rounds = 99 if not large else 9 if contestant == "ours" else 1
    benchmark.pedantic(lambda seed: function(data, k, seed), setup=lambda: ((next(seeds),), {}), rounds=rounds)
