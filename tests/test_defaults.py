"""Under another default device or type of torch's, every strategy, the seeder and the learner choose as they always do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import small
import torch
from torch import nn

import saal_fast
from saal_fast import strategies
from saal_fast.kmeans import kmeans_plusplus_reference
from saal_fast.learning import Accuracy, Training


@contextmanager
def defaults(which: str) -> Iterator[None]:
    if which == "context":
        with torch.device("meta"):
            yield
        return
    try:
        if which == "meta":
            torch.set_default_device("meta")
        if which == "float64":
            torch.set_default_dtype(torch.float64)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def network() -> nn.Module:
    """Nothing random in it: under another default device or type, a model's own draws are other ones."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, small.CLASSES),
    )  # fmt: skip


DEFAULTS = ("meta", "float64", "context")
every_default = pytest.mark.parametrize("which", DEFAULTS)
GENERATED = [torch.Generator().manual_seed(5).get_state()]


def generator() -> torch.Generator:
    made = torch.Generator("cpu")
    made.set_state(GENERATED[0])
    return made


@pytest.mark.parametrize(
    ("name", "which"),
    [
        pytest.param(name, which, marks=pytest.mark.slow if name in ("vaal", "ll4al") and which != "context" else ())
        for name in strategies.NAMES
        for which in DEFAULTS
    ],
)
def test_a_strategy_picks_the_same(name: str, which: str) -> None:
    model, x, pool = network(), small.images(10, seed=2), small.images(13)
    y = torch.arange(10) % small.CLASSES
    options = {"vaal": {"width": 4, "latent": 3}, "ll4al": {"width": 8}}.get(name, {})

    def picks() -> strategies.Selection:
        strategy, own = strategies.make(name, **options), copy.deepcopy(model)
        torch.default_generator.set_state(GENERATED[0])
        if name in ("ll4al", "vaal"):
            small.train(strategy, own, x, y, unlabelled=pool, generator=generator())
        return strategy.select(own.eval(), pool, 4, labelled=x, generator=generator())

    usual = picks()
    with defaults(which):
        found = picks()
    assert torch.equal(found.indices, usual.indices)
    assert (found.scores.dtype, found.scores.device) == (torch.float32, torch.device("cpu"))
    assert torch.equal(found.scores.nan_to_num(), usual.scores.nan_to_num())


@every_default
def test_scores_seeds_and_selections_are_the_same(which: str) -> None:
    model, pool = network().eval(), small.images(13)
    points, uniforms = torch.randn(40, 3), torch.rand(200, dtype=torch.float64)

    def found() -> list[torch.Tensor]:
        return [
            *(saal_fast.score(model, pool, 0.05, engine=engine) for engine in ("ghost", "vmap", "reference")),
            saal_fast.score(model, pool, 0.05, norm=3, labels=[1] * 13),
            saal_fast.score(model, pool.double()[:0].float(), 0.05),
            saal_fast.select(model, pool, 3, diversity="kmeans++", seed=generator()),
            saal_fast.select(model, pool, 3, diversity="badge", seed=1),
            saal_fast.kmeans_plusplus(points, 5, seed=generator(), weights=[1.0] * 40, initial=[3, 4]),
            saal_fast.kmeans_plusplus(points.numpy(), 5, seed=1),
            *(kmeans_plusplus_reference(points, 5, uniforms=uniforms, algorithm=way) for way in ("plain", "rejection")),
            kmeans_plusplus_reference(points[:, 0], 5, uniforms=uniforms.tolist(), algorithm="sorted", initial=[1]),
        ]

    usual = found()
    with defaults(which):
        under = found()
    for ours, theirs in zip(under, usual, strict=True):
        assert (ours.dtype, ours.device) == (theirs.dtype, theirs.device)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("strategy", "which"),
    [
        pytest.param(strategy, which, marks=() if strategy == "saal" or which == "context" else pytest.mark.slow)
        for strategy in ("saal", "random", "coreset", "badge")
        for which in DEFAULTS
    ],
)
def test_a_learner_asks_the_same(strategy: str, which: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    images, labels = small.images(40), torch.arange(40) % small.CLASSES
    ready = network()

    def asked() -> list[list[int]]:
        learner = saal_fast.ActiveLearner(
            lambda: copy.deepcopy(ready), images, strategy=strategy, k=3, initial=6, candidates=12, seed=3,
            train=Training(epochs=1, batch_size=4), evaluate=Accuracy(images, labels), folder=tmp_path_factory.mktemp("run"),
        )  # fmt: skip
        rounds = []
        for _ in range(3):
            indices = learner.ask()
            rounds.append(indices.tolist())
            learner.tell(indices, labels[indices])
        return rounds

    usual = asked()
    with defaults(which):
        assert asked() == usual


def test_a_model_on_meta_is_refused() -> None:
    model = nn.Linear(3, 2, device="meta")
    with pytest.raises(ValueError, match=r"weight.* on meta: .*materialise"):
        saal_fast.score(model, torch.randn(4, 3))


class Shifted(nn.Linear):
    """Makes a tensor in its forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.arange(3.0))


@pytest.mark.parametrize("which", ["meta", "context"])
def test_a_loader_and_a_model_that_make_tensors(which: str) -> None:
    torch.manual_seed(0)
    model, x = Shifted(3, 2), torch.randn(4, 3)
    expected, chosen = saal_fast.score(model, x), saal_fast.select(model, x, 2)
    pool = torch.utils.data.DataLoader(x.tolist(), 2, collate_fn=torch.tensor)
    with defaults(which):
        found, also = saal_fast.score(model, pool), saal_fast.select(model, pool, 2)
    assert torch.equal(found, expected)
    assert torch.equal(also, chosen)


def test_a_model_on_several_devices_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, device="meta"))
    with pytest.raises(ValueError, match=r"1\.weight.* on meta: .*materialise"):
        saal_fast.score(model, torch.randn(4, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)), torch.randn(5, 6)
    wide = saal_fast.score(model, x, 0.05)
    near = saal_fast.score(model.to(dtype), x.to(dtype), 0.05)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, wide, rtol=0.05, atol=0.02)  # bfloat16 has three digits


@pytest.mark.slow  # the compiler takes some ten seconds to load
def test_functions_that_are_compiled_call_score_as_it_is() -> None:
    model, pool = network().eval(), small.images(6)

    def ask(pool: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = saal_fast.score(model, pool) * 2
        return scores, saal_fast.select(model, pool, 2), saal_fast.kmeans_plusplus(pool.flatten(1), 2, seed=0)

    for found, usual in zip(torch.compile(ask)(pool), ask(pool), strict=True):
        assert torch.equal(found, usual)
    with pytest.raises(Exception, match=r"torch\.compiler\.disable"):
        torch.compile(ask, fullgraph=True)(pool)
