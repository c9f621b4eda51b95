"""What `bench/roofline.py` counts, against sums done by hand. Nothing here is a time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("triton", reason="triton is not installed: the kernels' blocks are not known")


@pytest.fixture(scope="module")
def roofline():
    path = Path(__file__).parents[1] / "bench/roofline.py"
    if not path.exists():
        pytest.skip("the benchmarks are not here")
    spec = importlib.util.spec_from_file_location("roofline", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["roofline"] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["roofline"]


def flops(costs, *kinds):
    return sum(c.flops for c in costs if c.kind in kinds)


def test_an_mlp(roofline):
    """Three passes of products, one without the first layer, whose input has no gradient; Gram matrices of one number."""

    def build():
        return nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 10)), (32, 100)

    forward, scoring, ways, n = roofline.counted(build, torch.float32, "l2")
    first, second = 2 * 100 * 64, 2 * 64 * 10
    assert (n, ways) == (32, {"ghost": 2, "autograd": 0})
    assert flops(forward, "products") == n * (first + second)
    assert flops(scoring, "products") == n * (2 * (first + second) + second)
    assert flops(scoring, "steps of factors") == n * 2 * ((100 + 64) + (64 + 10))
    block = 16  # of one position: what the kernel multiplies all the same
    assert flops(scoring, "norms of factors") == n * block**2 * 2 * ((100 + 64) + (64 + 10))


def test_a_convolution(roofline):
    def build():
        return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(6 * 64, 3)), (16, 4, 8, 8)

    forward, scoring, ways, n = roofline.counted(build, torch.float32, "l2")
    conv, head = 2 * 64 * 6 * 36, 2 * 6 * 64 * 3
    assert flops(forward, "products") == n * (conv + head)
    assert ways["autograd"] == 1  # 64 positions, and a small weight: its gradient is formed
    assert flops(scoring, "products") == n * (2 * (conv + head) + conv + head)
    moved = [c.bytes for c in forward if c.flops == n * conv]
    assert moved == [4 * (n * 4 * 64 + 6 * 36 + n * 6 * 64)]


def test_seconds_are_those_of_the_tighter_bound(roofline):
    gpu, (fp32, tf32, _) = roofline.Gpu("one", 1e12, 8e12, 16e12, 1e12), roofline.PRECISIONS
    assert roofline.Cost("products", 3e12, 2e12, False).seconds(gpu, fp32) == 3
    assert roofline.Cost("products", 3e12, 2e12, False).seconds(gpu, tf32) == 2
    assert roofline.Cost("products", 8e12, 2e12, True).seconds(gpu, fp32) == pytest.approx(3)
