import pytest
import small
import torch

from saal_fast import score, select
from saal_fast.strategies import SAAL


@pytest.mark.parametrize("own", [
    {}, {"objective": "diff", "rho": 0.5}, {"norm": 3}, {"adaptive": True, "rho": 0.1}, {"diversity": "kmeans++"},
    {"objective": "diff", "diversity": "kmeans++", "norm": float("inf")},
])  # fmt: skip
def test_it_chooses_as_select_and_holds_what_score_gives(own):
    model, x = small.network().double(), small.images(8, dtype=torch.float64)
    options = {"engine": "reference", "params": lambda name: name.startswith("12")}
    chosen = SAAL(**own, options=options).select(model, x, 3, generator=small.seeded(3))
    assert torch.equal(chosen.indices, select(model, x, 3, seed=small.seeded(3), **own, **options))
    without = {key: value for key, value in own.items() if key != "diversity"}
    assert torch.equal(chosen.scores, score(model, x, **without, **options).float())


def test_an_option_that_is_its_own_argument_is_an_error():
    with pytest.raises(TypeError, match="norm as SAAL's own argument"):
        SAAL(options={"norm": 3})


@pytest.mark.parametrize(
    ("own", "words"), [({"diversity": "pca"}, "kmeans"), ({"objective": "min"}, "objective"), ({"rho": -1}, "rho")]
)
def test_what_select_refuses_is_refused(own, words):
    with pytest.raises(ValueError, match=words):
        SAAL(**own).select(small.network(), small.images(3), 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rho": -1}, ValueError, "expected a finite rho >= 0"),
        ({"rho": "big"}, TypeError, "expected rho to be a number"),
        ({"norm": 0.5}, ValueError, "expected norm"),
        ({"diversity": "foo"}, ValueError, "expected diversity to be one of None, 'kmeans\\+\\+', 'badge'; got 'foo'"),
        ({"objective": "foo"}, ValueError, "expected objective to be one of 'max', 'diff'; got 'foo'"),
        ({"options": {"enigne": "ghost"}}, TypeError, "expected options of saal_fast.score, among .*; got enigne"),
        ({"options": {"engine": "gohst"}}, ValueError, "expected engine to be one of .*; got 'gohst'"),
        ({"options": {"batch_size": 0}}, ValueError, "expected batch_size"),
    ],
)
def test_what_cannot_be_scored_is_reported_when_it_is_made(options, error, words):
    with pytest.raises(error, match=words):
        SAAL(**options)
