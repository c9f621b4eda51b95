"""A layer's geometry."""

from __future__ import annotations

import pytest
import torch
from drawn import convs
from hypothesis import given, settings

from saal_fast.ops.common.window import LINEAR, Window


@settings(max_examples=40, deadline=None)
@given(drawn=convs())
def test_a_list_and_back(drawn):
    window = Window.of(drawn.window)
    assert window.to_list() == drawn.window
    assert window.output_size(*drawn.a.shape[2:]) == drawn.g.shape[2:]
    assert window.output_size(*drawn.x.shape[2:]) == drawn.base.shape[2:]


def test_a_linear_layer_is_a_convolution_of_1x1():
    a, g, weight = torch.randn(2, 5, 3), torch.randn(2, 5, 4), torch.randn(4, 3)
    assert Window.of(None) is LINEAR
    torch.testing.assert_close(LINEAR.gradients(a, g, weight), g.mT @ a)


@pytest.mark.parametrize("numbers", [[], [1] * 10, [0] + [1] * 10, [1] * 7 + [-1] + [1] * 3, [1] * 10 + [0]])
def test_numbers_that_are_no_window(numbers):
    with pytest.raises(ValueError, match=r"expected a window of 11 whole numbers.*got \["):
        Window.of(numbers)
