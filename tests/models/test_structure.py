"""A model's structure is the same as long as its code, settings and sharing are, whatever its weights hold."""

import threading

import pytest
import torch
from torch import nn

from saal_fast.models.structure import structure_of


class Settings:
    def __init__(self):
        self.scale, self.names = 2.0, ["a"]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.settings, self.table, self.kinds = Settings(), {"a": [1, 2]}, {"x", "y"}
        self.lock, self.method, self.function = threading.Lock(), self.forward, torch.relu
        self.me = self  # a circle

    def forward(self, x):
        return self.b(self.a(x))


def test_it_is_hashable_and_stays():
    model = Model()
    before = structure_of(model)
    assert hash(before) == hash(structure_of(model))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    assert structure_of(model) == before


def test_scripted_parts():
    model = nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Linear(3, 3)))
    before = structure_of(model)
    assert structure_of(model) == before
    model[1].weight.requires_grad_(False)
    assert structure_of(model) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "extra", 1),
        lambda m: setattr(m.settings, "scale", 3.0),
        lambda m: setattr(m.settings, "scale", 2),
        lambda m: m.settings.names.append("b"),
        lambda m: m.table["a"].append(3),
        lambda m: m.kinds.add("z"),
        lambda m: setattr(m, "function", torch.tanh),
        lambda m: setattr(m, "method", m.b.forward),
        lambda m: setattr(m, "settings", None),
        lambda m: setattr(m.a, "weight", m.b.weight),
        lambda m: setattr(m, "a", nn.Sequential(nn.Linear(3, 3))),
        lambda m: m.a.register_forward_hook(lambda *_: None),
        lambda m: m.a.requires_grad_(False),
        lambda m: m.a.double(),
        lambda m: setattr(m, "__class__", type("Other", (Model,), {})),
    ],
)
def test_what_changes_it(change):
    model = Model()
    before = structure_of(model)
    change(model)
    assert structure_of(model) != before


def test_a_function_that_takes_the_place_of_one_that_is_gone():
    model, seen = Model(), set()
    for i in range(50):
        model.function = None
        model.function = (lambda x, i=i: x + i) if i % 2 else (lambda x, i=i: x * i)
        seen.add(structure_of(model))
    assert len(seen) == 50
