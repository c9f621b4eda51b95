"""The tile operations at ResNet-18's layers for 32×32 images, against the layer itself and torch's matrix product.

    OMP_NUM_THREADS=1 pytest bench/ops/test_tiles.py --benchmark-only

`forward` is the convolution, `matmul` a plain product of its shape (patches, ready in memory, with the weight); both take
as many multiply-adds as a norm, an effect takes twice as many. "GFLOP/s" counts those of the best round, and "x matmul"
compares them to torch's product just before.
"""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from saal_fast.ops.common.window import Window
from saal_fast.ops.tiles import reference, tile_apply, tile_norm

SAMPLES = 16
LAYERS = {  # channels, outputs, size of the images, kernel, stride
    "3x3 64-64, T=1024": (64, 64, 32, 3, 1),
    "3x3 128-128, T=256": (128, 128, 16, 3, 1),
    "3x3 256-256, T=64": (256, 256, 8, 3, 1),
    "3x3 512-512, T=16": (512, 512, 4, 3, 1),
    "3x3/2 64-128, T=256": (64, 128, 32, 3, 2),
    "3x3/2 128-256, T=64": (128, 256, 16, 3, 2),
    "3x3/2 256-512, T=16": (256, 512, 8, 3, 2),
    "1x1/2 64-128, T=256": (64, 128, 32, 1, 2),
    "1x1/2 256-512, T=16": (256, 512, 8, 1, 2),
}
RULES = {"adaptive": ("adaptive", 2.0), "p=inf": ("lp", 1.0), "p=3": ("lp", 1.5)}
CONTESTANTS = ("forward", "matmul", *(f"{what} {rule}" for rule in RULES for what in ("norm", "apply")))


def best(run, rounds=7):
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_tiles(benchmark, layer, contestant):
    channels, outputs, size, kernel, stride = LAYERS[layer]
    before = kernel // 2
    window = Window((kernel,) * 2, (stride,) * 2, (before,) * 4).to_list()
    a, x = torch.randn(2, SAMPLES, channels, size, size)
    weight, scales = torch.randn(outputs, channels, kernel, kernel), torch.rand(SAMPLES)
    g = torch.randn_like(F.conv2d(a, weight, None, stride, before))
    patches = F.unfold(x, kernel, 1, before, stride).mT.flatten(0, 1)
    multiply_adds = len(patches) * weight.numel()

    def matmul():
        return patches @ weight.flatten(1).mT

    what, _, rule = contestant.partition(" ")
    if what == "norm":
        run = lambda: tile_norm(a, g, weight, window, *RULES[rule])  # noqa: E731
        expected = reference.norm(a.double(), g.double(), weight.double(), window, *RULES[rule])
        torch.testing.assert_close(run().double(), expected, rtol=1e-4, atol=0)
    elif what == "apply":
        multiply_adds *= 2
        run = lambda: tile_apply(a, g, x, weight, scales, window, *RULES[rule])  # noqa: E731
        few = [t[:2].double() for t in (a, g, x)]
        expected = reference.apply(*few, weight.double(), scales[:2].double(), window, *RULES[rule])
        error = (run()[:2].double() - expected).norm() / expected.norm()
        assert error < (1e-2 if rule == "p=inf" else 1e-5)  # the sign of a sum that cancels is anyone's
    else:
        run = matmul if what == "matmul" else lambda: F.conv2d(x, weight, None, stride, before)
    benchmark.group = layer
    benchmark.extra_info["samples"] = SAMPLES
    product = len(patches) * weight.numel() / best(matmul)
    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    speed = multiply_adds / benchmark.stats.stats.min
    benchmark.extra_info["GFLOP/s"] = round(2e-9 * speed, 1)
    benchmark.extra_info["x matmul"] = round(speed / product, 2)
