import pytest
import torch
from torch import nn

from saal_fast.experiments.networks import Block, residual_network, resnet18, small_resnet


def test_resnet18_is_the_papers_at_full_width():
    from torchvision.models import resnet18 as theirs  # noqa: PLC0415 - of the demo's extra

    other = theirs(num_classes=10)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = resnet18(10)
    shapes = [[tuple(p.shape) for p in model.parameters()] for model in (ours, other)]
    assert sorted(shapes[0]) == sorted(shapes[1])
    values = [p.detach() for p in ours.parameters()], list(other.parameters())
    with torch.no_grad():  # with its weights, layer by layer, it is torchvision's network
        for mine, his in zip(*values, strict=True):
            assert mine.shape == his.shape
            mine.copy_(his)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), other.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "channels", "stride", "side"), [(2, 1, 1, 28), (3, 3, 2, 28), (4, 1, 1, 8)])
def test_widths_and_strides(width, channels, stride, side):
    model = resnet18(7, channels, width, stride).eval()
    x = torch.randn(2, channels, side, side)
    assert model(x).shape == (2, 7)
    blocks = [m for m in model if isinstance(m, Block)]
    assert [b.main[0].out_channels for b in blocks] == [w * width for w in (1, 1, 2, 2, 4, 4, 8, 8)]
    assert [b.main[0].stride[0] for b in blocks] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert model[:3](x).shape[-1] == -(-side // stride)


def test_blocks_a_width():
    model = residual_network(3, channels=1, widths=(4, 8), blocks=3)
    assert [m.main[0].stride[0] for m in model if isinstance(m, Block)] == [1, 1, 1, 2, 1, 1]


@pytest.mark.parametrize("bad", [{"classes": 0}, {"width": 0}, {"channels": -1}, {"stem_stride": 0}])
def test_numbers_below_one_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is"):
        resnet18(**({"classes": 10} | bad))


@pytest.mark.parametrize(("side", "last"), [(8, 2), (16, 4), (28, 4)])
def test_small_resnet_shapes(side, last):
    model = small_resnet(7, side, widths=(4, 8, 16)).eval()
    images = torch.randn(3, 1, side, side)
    assert model(images).shape == (3, 7)
    assert model[:-3](images).shape == (3, 16, last, last)


def test_shortcut_carries_the_input():
    block = small_resnet(2, 8, widths=(4, 8)).eval()[3]
    torch.nn.init.zeros_(block.main[-1].weight)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)
