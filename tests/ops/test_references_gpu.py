"""Operations without a kernel for CUDA run there by their reference."""

from __future__ import annotations

import pytest
import torch
from drawn import close

from saal_fast.ops import depthwise, norms
from saal_fast.ops.common.window import Window
from saal_fast.ops.ghost import gram_linear, gram_norm

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def drawn(*shape):
    return torch.randn(shape)


IMAGES, WINDOW = drawn(3, 8, 9, 7), Window((3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 8).to_list()
ROWS, PRODUCTS = drawn(3, 5, 12), drawn(3, 5, 5)
CASES = {
    "layer_norm": (norms.layer_norm, (ROWS, drawn(3, 12), drawn(3, 12), 1e-5)),
    "layer_norm_back": (norms.layer_norm_back, (ROWS, drawn(3, 5, 12), drawn(3, 12), drawn(3, 5), drawn(3, 5))),
    "depthwise_apply": (depthwise.depthwise_apply, (IMAGES, drawn(3, 8, 3, 3), WINDOW)),
    "depthwise_gradient": (depthwise.depthwise_gradient, (IMAGES, drawn(3, 8, 5, 7), WINDOW)),
    "gram_norm": (gram_norm, (PRODUCTS, drawn(3, 5, 4), True)),
    "gram_linear": (gram_linear, (PRODUCTS, drawn(3, 5, 4), ROWS, drawn(3), drawn(4, 12), drawn(4), True)),
}


@pytest.mark.parametrize("name", CASES)
def test_on_a_device(name):
    run, args = CASES[name]
    made = run(*(t.cuda() if isinstance(t, torch.Tensor) else t for t in args))
    want = run(*(t.double() if isinstance(t, torch.Tensor) else t for t in args))
    for got, right in zip(*((t,) if isinstance(t, torch.Tensor) else t for t in (made, want)), strict=True):
        assert got.is_cuda
        close(got, right)
