import matplotlib as mpl
import pytest
import torch
from matplotlib.image import imread

from saal_fast.experiments.demo import pictures
from saal_fast.experiments.demo.pictures import MAX_SHOWN, draw_histogram, draw_picks
from saal_fast.experiments.demo.report import Pick


def picks_of(count):
    return [Pick(i + 1, i, 3.0 - i / count, 0.5, 1.0, "sneaker", "ankle boot") for i in range(count)]


def ink(path):
    """The share of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.97).mean())


@pytest.mark.parametrize("count", [1, 3, pytest.param(12, marks=pytest.mark.slow)])
def test_picks_are_drawn(tmp_path, count):
    black, white = torch.ones(count, 1, 8, 8), torch.zeros(count, 1, 8, 8)
    draw_picks(picks_of(count), black, tmp_path / "black.png")
    draw_picks(picks_of(count), white, tmp_path / "white.png")
    assert ink(tmp_path / "white.png") > 0.005  # the captions
    assert ink(tmp_path / "black.png") > ink(tmp_path / "white.png") + 0.1  # and the images


@pytest.mark.parametrize("most", [12, pytest.param(MAX_SHOWN, marks=pytest.mark.slow)])
def test_grid_grows_with_the_picks(tmp_path, monkeypatch, most):
    monkeypatch.setattr(pictures, "MAX_SHOWN", most)
    heights = []
    for count in (5, most, most + 3):
        draw_picks(picks_of(count), torch.rand(count, 1, 8, 8), tmp_path / "picks.png")
        heights.append(imread(tmp_path / "picks.png").shape[0])
    assert heights[0] < heights[1] == heights[2]


@pytest.mark.parametrize("count", [1, 50])
def test_histogram_marks_the_picks(tmp_path, count):
    scores = torch.arange(count) / count
    draw_histogram(scores, torch.tensor([count - 1]), tmp_path / "histogram.png")
    pixels = imread(tmp_path / "histogram.png")[..., :3]
    orange = (pixels[..., 0] > 0.85) & (pixels[..., 2] < 0.25)
    assert orange.sum() > 50


def test_the_backend_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "backend", "svg")
    draw_histogram(torch.rand(9), torch.tensor([1]), tmp_path / "histogram.png")
    assert mpl.rcParams["backend"] == "svg"
