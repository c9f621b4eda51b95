"""A softmax at a model's end is told once; accidents and other tasks are left alone."""

import pytest
import torch
from torch import nn

from saal_fast import score
from saal_fast._utils.logs import forget_warnings
from saal_fast.tasks import Classification


@pytest.fixture(autouse=True)
def each_warning_anew():
    forget_warnings()


def ending_in(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), *last)


def inputs(n=6):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1))


def told(caplog):
    return [r.getMessage() for r in caplog.records if "probabilities" in r.getMessage()]


class Normalised(nn.Module):
    def forward(self, x):
        return x.abs() / x.abs().sum(1, keepdim=True)


@pytest.mark.parametrize("last", [nn.Softmax(1), Normalised()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize(
    "options", [{}, {"labels": [0] * 6}, {"engine": "vmap"}, {"check": False}, {"task": Classification()}]
)
def test_probabilities_are_told_once(last, options, caplog):
    for _ in range(2):
        score(ending_in(last), inputs(), **options)
    assert told(caplog) == [
        "the outputs of Sequential look like probabilities: those of the first 6 samples are numbers >= 0 that sum to 1. "
        "score expects logits and takes the softmax itself, so that these scores are those of a softmax of a softmax: leave "
        "out the softmax at the model's end, or pass task= with a loss of probabilities"
    ]


def test_one_sample_and_half_precision(caplog):
    score(ending_in(nn.Softmax(1)).bfloat16(), inputs(1).bfloat16())
    score(ending_in(nn.Softmax(1)), inputs(1))
    assert "those of the first sample are numbers" in told(caplog)[-1]


@pytest.mark.parametrize("last", [nn.LogSoftmax(1), nn.Sigmoid(), nn.ReLU(), nn.Identity()], ids=lambda m: type(m).__name__)
def test_other_outputs_are_not(last, caplog):
    score(ending_in(last), inputs())
    assert not told(caplog)


class FirstOnly(nn.Module):
    """The first sample's outputs sum to 1 by accident."""

    def forward(self, x):
        return torch.where(x[:, :1] > 90, torch.tensor([0.25, 0.75, 0.0, 0.0]) + 0 * x, x)


def test_an_accident_of_the_first_sample_is_not(caplog):
    x = inputs()
    model = nn.Sequential(FirstOnly(), nn.Identity())
    model.register_parameter("scale", nn.Parameter(torch.ones(4)))
    model[1].register_forward_hook(lambda module, args, out: out * model.scale)
    x = torch.randn(6, 4)
    x[0, 0] = 99
    score(model, x)
    assert not told(caplog)


def test_a_task_of_ones_own_is_not(caplog):
    class Mine:
        def pseudo_label(self, output):
            return output.argmax(1)

        def loss(self, output, label):
            return -output.gather(1, label[:, None])[:, 0].log()

    score(ending_in(nn.Softmax(1)), inputs(), task=Mine())
    assert not told(caplog)
