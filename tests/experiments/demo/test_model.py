import pytest
import torch

from saal_fast.experiments.demo.model import small_resnet


@pytest.mark.parametrize(("side", "last"), [(8, 2), (16, 4), (28, 4)])
def test_shapes(side, last):
    model = small_resnet(7, side, widths=(4, 8, 16)).eval()
    images = torch.randn(3, 1, side, side)
    assert model(images).shape == (3, 7)
    assert model[:-3](images).shape == (3, 16, last, last)


def test_shortcut_carries_the_input():
    block = small_resnet(2, 8, widths=(4, 8)).eval()[3]
    torch.nn.init.zeros_(block.main[-1].weight)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)
