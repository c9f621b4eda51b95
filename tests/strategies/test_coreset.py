"""Coreset against plain references: greedy centres, and the best cover by trying all."""

import itertools
import logging
import sys

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saal_fast import NonFiniteError, strategies
from saal_fast.strategies import cover
from saal_fast.strategies.coreset import greedy, nearest


def drawn(n, d=3, seed=0):
    return torch.randn(n, d, generator=small.seeded(seed), dtype=torch.float64)


class Plane(nn.Module):
    """A model whose features are its inputs."""

    def __init__(self, d=3):
        super().__init__()
        self.head = nn.Linear(d, 2).double()

    def forward(self, x):
        return self.head(x)


def plain_greedy(points, centres, k):
    """Sample by sample: the one whose nearest centre is farthest."""
    centres, picks = [c.tolist() for c in centres], []
    points = points.tolist()
    for _ in range(k):

        def to_centre(i):
            return min(sum((a - b) ** 2 for a, b in zip(points[i], c, strict=True)) ** 0.5 for c in centres)

        pick = max((i for i in range(len(points)) if i not in picks), key=to_centre)
        picks.append(pick)
        centres.append(points[pick])
    return picks


def reach(points, centres, allowed=0):
    """How far the farthest sample is from its centre, the `allowed` farthest left out."""
    far = torch.stack([(centres - p).norm(dim=1).min() for p in points]).sort(descending=True).values
    return far[allowed].item()


def best_reach(points, labelled, k, allowed):
    """The least over all choices of k."""
    return min(
        reach(points, torch.cat([labelled, points[list(picks)]]), allowed)
        for picks in itertools.combinations(range(len(points)), k)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000), st.data())
def test_greedy_centres_are_the_plain_ones(n, m, d, seed, data):
    points, labelled = drawn(n, d, seed), drawn(m, d, seed + 1)
    k = data.draw(st.integers(1, n))
    chosen = strategies.make("coreset").select(Plane(d), points, k, labelled=labelled)
    assert chosen.indices.tolist() == plain_greedy(points, labelled, k)
    expected = torch.stack([(labelled - p).norm(dim=1).min() for p in points])
    torch.testing.assert_close(chosen.scores, expected.float())


@pytest.mark.parametrize("seed", range(3))
def test_the_greedy_cover_is_at_most_twice_the_best(seed):
    points, labelled = drawn(12, 2, seed), drawn(2, 2, seed + 10)
    picks = greedy(points, 3, nearest(points, labelled), small.seeded(0))
    assert reach(points, torch.cat([labelled, points[picks]])) <= 2 * best_reach(points, labelled, 3, 0) + 1e-12


def test_without_labelled_samples_the_first_centre_is_drawn_and_nothing_is_held_of_samples():
    points, model = drawn(30), Plane()
    firsts = set()
    for seed in range(20):
        chosen = strategies.make("coreset").select(model, points, 4, labelled=[], generator=small.seeded(seed))
        first = chosen.indices[0].item()
        assert chosen.indices[1:].tolist() == plain_greedy(points, points[[first]], 3)
        assert chosen.scores.isnan().all()
        firsts.add(first)
    assert len(firsts) > 5


def test_distances_are_right_far_from_the_origin_and_over_parts():
    points, centres = drawn(20) + 1e6, drawn(9, seed=1) + 1e6
    expected = torch.stack([(centres - p).norm(dim=1).min() for p in points])
    torch.testing.assert_close(nearest(points, centres, at_once=4), expected, rtol=1e-6, atol=1e-8)
    assert nearest(points, points, at_once=4).max() < 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.integers(0, 3), st.integers(1, 3), st.sampled_from([0, 0.12, 0.25]), st.integers(0, 100))
def test_the_robust_cover_is_the_best_there_is(n, m, k, share, seed):
    points, labelled = drawn(n, 2, seed), drawn(m, 2, seed + 1)
    k = min(k, n)
    strategy = strategies.make("coreset", robust=True, outliers=share)
    chosen = strategy.select(Plane(2), points, k, labelled=labelled, generator=small.seeded(0)).indices
    assert len(set(chosen.tolist())) == k
    allowed = int(share * n)
    got = reach(points, torch.cat([labelled, points[chosen]]), allowed)
    assert got == pytest.approx(best_reach(points, labelled, k, allowed), rel=1e-9, abs=1e-9)


def test_outliers_may_stay_uncovered():
    crowd = drawn(20, 2)
    points = torch.cat([crowd, torch.tensor([[100.0, 100.0]])])
    options = {"labelled": crowd[:1], "generator": small.seeded(0)}
    strict = strategies.make("coreset", robust=True, outliers=0).select(Plane(2), points, 1, **options)
    robust = strategies.make("coreset", robust=True, outliers=0.05).select(Plane(2), points, 1, **options)
    assert strict.indices.tolist() == [20]
    assert robust.indices.tolist() != [20]


def test_out_of_time_the_greedy_cover_is_taken_and_logged(caplog):
    points, labelled = drawn(40), drawn(3, seed=1)
    options = {"labelled": labelled, "generator": small.seeded(0)}
    plain = strategies.make("coreset").select(Plane(), points, 5, **options)
    with caplog.at_level(logging.WARNING, "saal_fast"):
        hasty = strategies.make("coreset", robust=True, time_limit=1e-9).select(Plane(), points, 5, **options)
    assert sorted(hasty.indices.tolist()) == sorted(plain.indices.tolist())
    assert "no time left" in caplog.text


def test_a_pool_too_large_for_the_programme_is_an_error():
    points = torch.zeros(cover.MAX_SAMPLES + 1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"at most 4096 samples.*got 4097"):
        strategies.make("coreset", robust=True).select(Plane(), points, 1)


def test_without_scipy_the_extra_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'saal-fast\[coreset\]'"):
        strategies.make("coreset", robust=True).select(nn.Identity(), drawn(5), 1)
    assert len(strategies.make("coreset").select(Plane(), drawn(5), 1).indices) == 1


@pytest.mark.parametrize("options", [{"outliers": 1.0}, {"outliers": -0.1}, {"time_limit": 0}])
def test_options_out_of_range_are_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        strategies.make("coreset", **options)


def test_labelled_samples_that_are_not_finite_are_an_error_or_left_out():
    points, labelled = drawn(10), drawn(4, seed=1)
    bad = torch.cat([labelled, torch.full((1, 3), torch.nan, dtype=torch.float64)])
    with pytest.raises(NonFiniteError):
        strategies.make("coreset").select(Plane(), points, 3, labelled=bad)
    kept = strategies.make("coreset", on_nonfinite="keep").select(Plane(), points, 3, labelled=bad)
    assert torch.equal(kept.indices, strategies.make("coreset").select(Plane(), points, 3, labelled=labelled).indices)
