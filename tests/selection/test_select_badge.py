from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from saal_fast import Classification, kmeans_plusplus, score, select
from saal_fast.selection import pick
from saal_fast.selection.gradient_embeddings import gradient_factors
from saal_fast.tasks import logit_gradient


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).double()


def inputs(n: int = 40) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def factors(model, x, label, **options):
    found = gradient_factors(model, x, **options)
    return logit_gradient(found.logits, label), found.features


def test_the_factors_are_the_last_layers_gradients() -> None:
    model, x = mlp().eval(), inputs()
    label = torch.arange(40) % 3
    a, h = factors(model, x, label, batch_size=7)
    assert (a.shape, h.shape) == ((40, 3), (40, 8))
    for i in range(40):
        (gradient,) = torch.autograd.grad(
            nn.functional.cross_entropy(model(x[i : i + 1]), label[i : i + 1]), model[3].weight
        )
        torch.testing.assert_close(a[i][:, None] * h[i], gradient)


def test_picks_are_the_weighted_seeding_of_the_embedding() -> None:
    model, x = mlp(), inputs()
    model.train()
    scored = score(model, x, 0.3, details=True)
    model.eval()
    z = model(x).detach()
    residual = z.softmax(1) - nn.functional.one_hot(z.argmax(1), 3)
    embedding = residual[:, :, None] * model[2](model[1](model[0](x))).detach()[:, None, :]
    model.train()
    expected = kmeans_plusplus(
        embedding.flatten(1), 9, first="argmax", weights=scored.perturbed_loss, seed=2, algorithm="plain"
    )
    pair = kmeans_plusplus(
        factors(model, x, scored.label), 9, first="argmax", weights=scored.perturbed_loss, seed=2, algorithm="plain"
    )
    assert pair.equal(expected)
    picks = select(model, x, 9, 0.3, diversity="badge", seed=2)
    assert picks.equal(select(model, x, 9, 0.3, diversity="badge", seed=2))
    norms = scored.perturbed_loss * embedding.flatten(1).square().sum(1)
    assert picks[0] == norms.argmax()
    assert len(set(picks.tolist())) == 9
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_second_row_is_drawn_by_distance_times_perturbed_loss() -> None:
    model, x = mlp(), inputs(6)
    scored = score(model, x, 0.3, details=True, embeddings=True)
    a, h = factors(model, x, scored.label)
    embedding = (a[:, :, None] * h[:, None, :]).flatten(1)
    first = int((scored.perturbed_loss * embedding.square().sum(1)).argmax())
    weights = scored.perturbed_loss * (embedding - embedding[first]).square().sum(1)
    counts = torch.zeros(6, dtype=torch.float64)
    for seed in range(600):
        counts[pick(scored, 2, diversity="badge", seed=seed)[1]] += 1
    expected = 600 * weights / weights.sum()
    used = expected > 1
    assert float(((counts - expected)[used] ** 2 / expected[used]).sum()) < 30  # of 5 degrees of freedom or fewer: p < 2e-5


@pytest.mark.parametrize("pool", [list, TensorDataset, lambda x: DataLoader(TensorDataset(x), batch_size=6)])
def test_pools_of_any_kind(pool) -> None:
    assert select(mlp(), pool(inputs()), 5, diversity="badge", seed=0).equal(
        select(mlp(), inputs(), 5, diversity="badge", seed=0)
    )


def test_given_labels_are_those_of_the_gradient() -> None:
    x, labels = inputs(), torch.arange(40) % 3
    picks = select(mlp(), x, 1, diversity="badge", seed=0, labels=labels)
    loss = score(mlp(), x, labels=labels)
    a, h = factors(mlp(), x, labels)
    assert picks[0] == (loss * a.square().sum(1) * h.square().sum(1)).argmax()


class Counted(nn.Module):
    """Counts calls of all its kind."""

    passes = 0

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        Counted.passes += 1
        return self.body(x)


class Turns(IterableDataset):
    """Another order in each pass; counts the passes."""

    def __init__(self) -> None:
        self.items, self.passes = inputs(), 0

    def __iter__(self):
        self.passes += 1
        self.items = self.items.roll(1, 0)
        return iter(self.items)


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
def test_the_pool_is_read_once_and_the_model_called_as_often_as_by_score(engine) -> None:
    calls = {}
    for diversity in (None, "badge"):
        model, pool = Counted(), Turns()
        Counted.passes = 0
        select(model, DataLoader(pool, batch_size=8), 5, diversity=diversity, engine=engine, batch_size=8)
        calls[diversity] = Counted.passes
        assert pool.passes == 1
    Counted.passes = 0
    score(Counted(), DataLoader(Turns(), batch_size=8), engine=engine, batch_size=8)
    assert calls == {None: Counted.passes, "badge": Counted.passes}


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
@pytest.mark.parametrize("params", [None, lambda name: name.startswith("0")], ids=["all", "the first layer"])
def test_every_engine_gives_the_last_layers_gradients(engine, params) -> None:
    model, x = mlp().eval(), inputs(11)
    found = score(model, x, 0.3, details=True, embeddings=True, engine=engine, params=params, batch_size=4)
    a, h = factors(model, x, found.label)
    assert found.embedding is not None
    torch.testing.assert_close(found.embedding[0], a)
    torch.testing.assert_close(found.embedding[1], h)
    assert score(model, x, details=True).embedding is None


@pytest.mark.parametrize("engine", ["ghost", "vmap", "reference"])
def test_embeddings_under_given_labels(engine) -> None:
    model, x, labels = mlp().eval(), inputs(9), torch.arange(9) % 3
    found = score(model, x, details=True, embeddings=True, engine=engine, labels=labels).embedding
    a, _ = factors(model, x, labels)
    assert found is not None
    torch.testing.assert_close(found[0], a)
    assert not torch.allclose(a, factors(model, x, None)[0])


class Heads(nn.Module):
    """Logits that are not, or not as they come, what the last linear layer gives."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.head, self.other, self.scaled = nn.Linear(4, 3), nn.Linear(4, 3), scaled

    def forward(self, x):
        return 5 * self.head(x) if self.scaled else (self.head(x), self.other(x))


@pytest.mark.parametrize("scaled", [True, False])
def test_logits_that_the_last_linear_layer_does_not_make_are_an_error(scaled) -> None:
    with pytest.raises(ValueError, match="expected the output of the last linear layer to be the logits"):
        select(Heads(scaled).double(), inputs(), 3, diversity="badge")


def test_embeddings_without_details_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected details=True with embeddings=True"):
        score(mlp(), inputs(), embeddings=True)
    with pytest.raises(TypeError, match="select gives positions; call score for embeddings"):
        select(mlp(), inputs(), 3, embeddings=True)


def test_signatures_show_what_is_taken() -> None:
    assert "embeddings" in inspect.signature(score).parameters
    shown = inspect.signature(select).parameters
    assert not {"embeddings", "details"} & set(shown)
    defaults = {name: p.default for name, p in shown.items() if name not in {"model", "pool", "k"}}
    assert select(mlp(), inputs(), 3, **defaults).shape == (3,)


@pytest.mark.parametrize(
    ("k", "diversity", "error"), [(0, None, ValueError), (2.5, None, TypeError), (2, "none", ValueError)]
)
def test_pick_checks_its_arguments(k, diversity, error) -> None:
    with pytest.raises(error, match="expected"):
        pick(score(mlp(), inputs(), details=True), k, diversity=diversity)


def test_embeddings_are_of_classifiers() -> None:
    with pytest.raises(ValueError, match="expected task=None with embeddings=True"):
        score(mlp(), inputs(), details=True, embeddings=True, task=Classification())
    with pytest.raises(ValueError, match="score them with embeddings=True"):
        pick(score(mlp(), inputs(), details=True), 3, diversity="badge")


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 4), nn.Flatten()), "runs none"),
        (nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Linear(3, 2), nn.Flatten()), r"of weight \[2, 3\]"),
    ],
    ids=["no linear layer", "a row for each of two positions"],
)
def test_a_model_without_a_last_layer_of_that_kind(model, got) -> None:
    with pytest.raises(ValueError, match=got):
        select(model.double(), inputs(), 3, diversity="badge")


def test_scores_in_half_precision_are_no_other_pool() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    picks = select(model, torch.randn(60, 6), 5, diversity="badge", seed=0, precision="bf16")
    assert len(set(picks.tolist())) == 5
