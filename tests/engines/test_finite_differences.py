"""All engines, held to finite differences: batch norm and its like, with gradients of any memory layout (batches of one)."""

import pytest
import torch
from torch import nn

import saal_fast
from tests.truth import assert_true, truth_of

ENGINES = ("ghost", "vmap", "reference")
RULES = ({}, {"norm": 3}, {"adaptive": True})

LAYERS = {
    "bn": (2, lambda: nn.BatchNorm2d(4)),
    "bn without statistics": (2, lambda: nn.BatchNorm2d(4, track_running_stats=False)),
    "bn without weights": (2, lambda: nn.BatchNorm2d(4, affine=False)),
    "instance norm": (2, lambda: nn.InstanceNorm2d(4, affine=True)),
    "instance norm with statistics": (2, lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
    "group norm": (2, lambda: nn.GroupNorm(2, 4)),
    "upsampling": (2, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "max pooling": (2, lambda: nn.MaxPool2d(2)),
    "depthwise": (2, lambda: nn.Conv2d(4, 4, 3, groups=4)),
    "transposed": (2, lambda: nn.ConvTranspose2d(4, 4, 2, 2)),
    "bn 3d": (3, lambda: nn.BatchNorm3d(4)),
    "bn 3d without statistics": (3, lambda: nn.BatchNorm3d(4, track_running_stats=False)),
    "instance norm 3d": (3, lambda: nn.InstanceNorm3d(4, affine=True)),
    "group norm 3d": (3, lambda: nn.GroupNorm(2, 4)),
    "bn 1d": (1, lambda: nn.BatchNorm1d(4)),
    "instance norm 1d": (1, lambda: nn.InstanceNorm1d(4)),
}
FURTHER = ("bn 3d without statistics", "instance norm 3d", "group norm 3d", "bn without weights", "instance norm")  # slowly
ENDS = {
    "tokens": lambda y: y.flatten(2).transpose(1, 2).flatten(1),
    "channels last": lambda y: y.movedim(1, -1).contiguous().flatten(1),
    "plain": lambda y: y.flatten(1),
}


class Normed(nn.Module):
    def __init__(self, layer, end, scripted=False, last=False):
        super().__init__()
        torch.manual_seed(0)
        dims, make = LAYERS[layer]
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        layer = make()
        for t in (*layer.parameters(), *layer.buffers()):
            if t.is_floating_point():
                nn.init.uniform_(t, 0.5, 1.5)
        self.end, self.conv, self.layer = ENDS[end], conv(1, 4, 2), layer
        if scripted:
            self.layer = torch.jit.script(layer)
        with torch.no_grad():
            self.head = nn.Linear(self.end(self.layer.eval()(self.conv(torch.zeros(1, 1, *(4,) * dims)))).shape[1], 2)
        self.double()
        if last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.head(self.end(self.layer(self.conv(x))).tanh())


def pool_for(layer, count=2):
    return torch.randn(count, 1, *(4,) * LAYERS[layer][0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("layer", "end"),
    [
        pytest.param(
            layer, end, marks=() if (end == "tokens" and layer not in FURTHER) or layer == "bn" else pytest.mark.slow
        )
        for layer in LAYERS
        for end in ENDS
    ],
)
def test_gradients_of_any_layout(layer, end):
    chosen = {"params": lambda name: not name.startswith("head")}
    truth = truth_of(lambda: Normed(layer, end), pool_for(layer), **chosen)
    for engine in ENGINES:
        scores = saal_fast.score(Normed(layer, end), pool_for(layer), details=True, engine=engine, **chosen)
        assert_true(scores, truth)


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_every_rule(rule):
    layer, chosen = "bn", {"params": lambda name: not name.startswith("head")} | rule
    truth = truth_of(lambda: Normed(layer, "tokens"), pool_for(layer), **chosen)
    for engine in ENGINES:
        assert_true(saal_fast.score(Normed(layer, "tokens"), pool_for(layer), details=True, engine=engine, **chosen), truth)


@pytest.mark.parametrize("options", [{"scripted": True}, {"last": True}], ids=str)
@pytest.mark.parametrize("layer", ["bn", pytest.param("instance norm", marks=pytest.mark.slow)])
def test_scripted_layers_and_channels_last_models(layer, options):
    chosen = {"params": lambda name: not name.startswith("head")}
    truth = truth_of(lambda: Normed(layer, "tokens"), pool_for(layer), **chosen)
    for engine in ENGINES:
        model = Normed(layer, "tokens", **options)
        scores = saal_fast.score(model, pool_for(layer), details=True, engine=engine, **chosen)
        assert_true(scores, truth)
