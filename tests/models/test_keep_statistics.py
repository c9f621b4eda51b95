"""`keep_statistics`: what norms have counted comes back, and all else goes on."""

import math

import pytest
import torch
from torch import nn

from saal_fast.models.state import keep_statistics


def normed():
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=None), nn.InstanceNorm1d(2, track_running_stats=True)]
    return nn.Sequential(*norms).double()


def test_statistics_are_put_back_whatever_happens():
    model = normed()
    model(torch.randn(4, 2, 3, dtype=torch.float64))
    before, buffer = [b.tolist() for b in model.buffers()], model[0].running_mean

    def spoil():
        model(torch.full((4, 2, 3), math.nan, dtype=torch.float64))
        assert all(b.isnan().all() for b in model.buffers() if b.is_floating_point())
        model[0].running_mean = torch.zeros(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), keep_statistics(model):
        spoil()
    assert [b.tolist() for b in model.buffers()] == before
    assert model[0].running_mean is buffer


def test_layers_normalise_by_their_batch_while_statistics_are_kept():
    model, twin, x = normed(), normed(), torch.randn(4, 2, 3, dtype=torch.float64)
    with keep_statistics(model):
        assert torch.equal(model(x), twin(x))


def test_other_buffers_go_on_while_statistics_are_kept():
    model = normed()
    model.register_buffer("seen", torch.zeros(()))
    with keep_statistics(model):
        model.seen += 1
    assert model.seen == 1
