"""An error in the middle of a pool is raised as it came, says where it was, and carries the scores so far."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from saal_fast import NonFiniteError, score, select

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


class BrokenError(Exception):
    def __init__(self, path, reason):
        super().__init__(path, reason)
        self.path = path


class NamedError(Exception):
    sample = "mine"


class SlotsError(Exception):
    __slots__ = ()


@dataclass(frozen=True)
class FrozenError(Exception):
    path: str


ERRORS = [OSError("image file is truncated"), BrokenError("a.jpg", "cut"), SlotsError(), FrozenError("a.jpg"), KeyError("a")]


def few(one, other, cases, *further):
    """Quickly every error by one case and one error by every case, slowly all errors by all."""
    return [
        pytest.param(error, *case, marks=() if error is ERRORS[0] or case == (one, other) else pytest.mark.slow)
        for case in cases
        for error in (*ERRORS, *further)
    ]


def named(value):
    return type(value).__name__ if isinstance(value, Exception) else None


class Images(Dataset):
    def __init__(self, error, at=7):
        self.error, self.at = error, at

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == self.at:
            raise self.error
        return X[index]


class Flow(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return (self.images[i] for i in range(12))


def carried(error, sample):
    assert error.sample == len(error.scores_so_far) == sample
    torch.testing.assert_close(error.scores_so_far.perturbed_loss, score(mlp(), X[:sample]))
    if sample:
        assert f"sample {sample} of the pool; the error's scores_so_far" in error.__notes__[-1]


@pytest.mark.parametrize(
    ("error", "size", "at"), few("auto", 7, [(size, at) for size in ("auto", 3) for at in (0, 7)]), ids=named
)
def test_an_error_of_the_pool(error, size, at):
    for pool in (Images(error, at), Flow(Images(error, at)), DataLoader(Images(error, at), 1)):
        with pytest.raises(type(error)) as caught:
            score(mlp(), pool, batch_size=size)
        assert caught.value is error
        carried(error, at)


@pytest.mark.slow  # torch takes ten seconds to clear away the workers of a loader that failed
@pytest.mark.parametrize("error", ERRORS, ids=named)
def test_an_error_of_a_worker_keeps_its_class(error):
    with pytest.raises(type(error), match=f"Caught {type(error).__name__} in DataLoader worker") as caught:
        score(mlp(), DataLoader(Images(error), 5, num_workers=2))
    carried(caught.value, 5)
    assert caught.value.__notes__[0] == "batch 1 of the DataLoader raised this"


def test_a_truncated_image(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.jpg"
    image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:400])

    class Files(Images):
        def __getitem__(self, index):
            return X[index] if index != 7 else image.open(path).convert("L")

    with pytest.raises(OSError, match="truncated") as caught:
        score(mlp(), Files(None))
    carried(caught.value, 7)


class Picky(nn.Module):
    """Refuses samples that begin with a large number."""

    def __init__(self, error):
        super().__init__()
        self.body, self.error = mlp(), error

    def forward(self, x):
        if (x[:, 0] > 50).any():
            raise self.error
        return self.body(x)


@pytest.mark.parametrize(
    ("error", "size", "engine"),
    few(
        "auto", "auto", [(size, engine) for size in (1, 4, "auto") for engine in ("auto", "reference")], RuntimeError("mine")
    ),
    ids=named,
)
def test_an_error_of_the_model_names_its_sample(error, size, engine):
    x = X.clone()
    x[9, 0] = 99
    with pytest.raises(type(error)) as caught:
        score(Picky(error), x, batch_size=size, engine=engine)
    carried(caught.value, 9)


def test_an_error_that_no_single_sample_raises_names_its_batch():
    calls = itertools.count(1)

    class Late(Picky):
        def forward(self, x):
            if next(calls) == 20:
                raise self.error
            return self.body(x)

    with pytest.raises(OSError, match="once") as caught:
        score(Late(OSError("once")), X, batch_size=4, engine="reference", check=False)
    error = caught.value
    assert (error.sample, len(error.scores_so_far)) == (8, 8)
    assert "at samples 8 to 11, one batch, of the pool" in error.__notes__[-1]


def test_an_interrupt_carries_the_scores_too():
    with pytest.raises(KeyboardInterrupt) as caught:
        score(mlp(), Images(KeyboardInterrupt()), batch_size=3)
    assert len(caught.value.scores_so_far) == 6


def test_non_finite_samples_cut_the_scores():
    x = X.clone()
    x[6] = torch.nan
    with pytest.raises(NonFiniteError) as caught:
        score(mlp(), x, batch_size=4)
    carried(caught.value, 6)


def test_an_attribute_of_the_error_stays():
    error = NamedError()
    with pytest.raises(NamedError):
        score(mlp(), Images(error))
    assert (error.sample, len(error.scores_so_far)) == ("mine", 7)


def test_select_carries_them_and_a_mended_pool_goes_on():
    images = Images(OSError("cut"))
    with pytest.raises(OSError, match="cut") as caught:
        select(mlp(), images, 2)
    done = caught.value.scores_so_far.perturbed_loss
    rest = score(mlp(), X[len(done) + 1 :])
    torch.testing.assert_close(torch.cat([done, rest]), score(mlp(), X)[torch.arange(12) != 7])
