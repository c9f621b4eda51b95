"""Which operations are taken to draw random numbers."""

import pytest
import torch

from saal_fast.engines.capture.randomness import may_draw

aten = torch.ops.aten
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu.default


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "draws"),
    [
        (aten.add.Tensor, (1, 2), {}, False),
        (aten.bernoulli.default, (1,), {}, True),
        (aten.native_dropout.default, (1, 0.5, True), {}, True),
        (ATTENTION, (1, 2, 3), {}, False),
        (ATTENTION, (1, 2, 3, 0.0, True), {}, False),
        (ATTENTION, (1, 2, 3, 0.1), {}, True),
        (ATTENTION, (1, 2, 3), {"dropout_p": 0.1}, True),
        (len, (), {}, False),
    ],
)
def test_may_draw(operation, args, kwargs, draws):
    assert may_draw(operation, args, kwargs) == draws
