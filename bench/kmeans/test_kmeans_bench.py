"""k-means++ seeding: ours against scikit-learn, faiss and scikit-activeml, and our own plain passes.

    pytest bench/kmeans/test_kmeans_bench.py --benchmark-only [-k "spread and t1"] [--benchmark-json=FILE]

Each contestant with one thread (t1) and two (t2), and last the ratios of medians to ours. Ours: medians of nine seeds (99 of
the smallest work). A contestant that takes seconds runs with one seed, or with SEEDS of them (an environment variable).
scikit-learn runs with one candidate a row (by default it tries several): the same algorithm as ours. BADGE's embeddings are
materialised for scikit-activeml, which can't take factors, before the clock starts.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys
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
SEEDS = int(os.environ.get("SEEDS", "1"))


def prepared(name: str, x: Any) -> Any:
    if name == "skactiveml":
        a, h = x
        return (a[:, :, None] * h[:, None, :]).reshape(len(a), -1)
    return x.astype(np.float64) if name == "sklearn_f64" else x


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("threads", [1, 2], ids=["t1", "t2"])
@pytest.mark.parametrize("work", WORK)
def test_seeding(benchmark: BenchmarkFixture, work: str, threads: int, contestant: str) -> None:
    limits = pytest.importorskip("threadpoolctl", reason="threadpoolctl, a part of scikit-learn, is not installed")
    x, k = WORK[work]()
    if isinstance(x, tuple) != (contestant == "skactiveml") and contestant not in ("ours", "plain"):
        pytest.skip("scikit-activeml has the embeddings to itself")
    if contestant == "faiss" and x.shape[1] == 1:
        pytest.skip("faiss is for vectors")
    function, data, seeds = CONTESTANTS[contestant], prepared(contestant, x), itertools.count()
    large = len(x[0] if isinstance(x, tuple) else x) * k >= 10_000_000
    rounds = 9 if large else 99 if k < 100 else 9
    if large and contestant != "ours":
        rounds = SEEDS
    benchmark.group = f"{work}, {threads} thread{'s' if threads > 1 else ''}"
    benchmark.extra_info["seeds"] = rounds
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with limits.threadpool_limits(threads):
            if rounds > 1:
                rows = function(data, k, 0)
                if contestant != "faiss":  # it gives centres, not rows
                    assert len(np.unique(np.asarray(rows))) == k
            benchmark.pedantic(lambda seed: function(data, k, seed), setup=lambda: ((next(seeds),), {}), rounds=rounds)
    finally:
        torch.set_num_threads(before)


PROBE = """
import json, resource, sys
import torch
import test_kmeans_bench as bench
torch.set_num_threads(1)
points, k = bench.WORK[sys.argv[1]]()
bench.kmeans_plusplus(torch.zeros(8, 8), 2, algorithm=sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bench.kmeans_plusplus(points, k, seed=0, algorithm=sys.argv[2])
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))
"""


@pytest.mark.parametrize("algorithm", ["plain", "rejection"])
@pytest.mark.parametrize("work", ["50000 x 512, k=1000, spread out"])  # the others' making peaks higher than the search
def test_peak_memory_beyond_the_input(
    benchmark: BenchmarkFixture, work: str, algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here, command = pathlib.Path(__file__).parent, [sys.executable, "-c", PROBE, work, algorithm]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True, cwd=here).stdout, rounds=1
    )
    benchmark.extra_info["MB"] = float(done)
    with capsys.disabled():
        print(f"\npeak memory of {work}, {algorithm}: {float(done):.1f} MB beyond the input")
