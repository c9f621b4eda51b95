"""The small inputs on which an operation's kernel proves itself on a device (see `_utils/proofs.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .window import Window, output_shape

RULES = (("lp", 1.0), ("lp", 3.0), ("adaptive", 2.0))
WINDOWS = (None, Window((3, 2), (2, 1), (0, 1, 1, 0), (1, 2), 2).to_list())
"""Few: every combination is one more kernel to compile on a machine's first use."""


class Layer(NamedTuple):
    """A layer's tensors, as the operations have them."""

    a: Tensor
    g: Tensor
    x: Tensor
    weight: Tensor
    scales: Tensor
    base: Tensor
    window: list[int] | None


class _Draws:
    """Whole numbers, whose products are exact: else a gradient of nearly 0 could have either sign."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.generator = device, dtype, torch.Generator("cpu").manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        whole = torch.randint(-2, 3, shape, dtype=torch.int64, generator=self.generator, device="cpu")
        return whole.to(self.device, self.dtype)


def layers(device: torch.device, dtype: torch.dtype) -> Iterator[Layer]:
    """Layers of a type, one for each window."""
    draw = _Draws(device, dtype)
    for numbers in WINDOWS:
        window = Window.of(numbers)
        shape = (3, 19, 24) if numbers is None else (3, 8, 9, 10)
        a, x, outputs = draw(*shape), draw(*shape), 36
        inputs = shape[-1] if numbers is None else shape[1] // window.groups
        weight = draw(outputs, inputs, *(() if numbers is None else window.kernel))
        like = output_shape(a, outputs, window)
        yield Layer(a, draw(*like), x, weight / 4, draw(3) / 64, draw(*like), numbers)


def tile_norms(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `tile_norm`."""
    for layer in layers(device, dtype):
        for rule in RULES:
            yield layer.a, layer.g, layer.weight, layer.window, *rule


def tile_steps(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `tile_apply`."""
    for layer in layers(device, dtype):
        for rule in RULES:
            yield layer.a, layer.g, layer.x, layer.weight, layer.scales, layer.window, *rule


def ghost_norms(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `ghost_norm`."""
    for layer in layers(device, dtype):
        for bias in (False, True):
            yield layer.a, layer.g, layer.window, bias


def ghost_steps(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `ghost_apply`."""
    for layer in layers(device, dtype):
        for bias in (False, True):
            yield layer.a, layer.g, layer.x, layer.scales, layer.base, layer.window, bias


def flat_norms(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `flat_norm`."""
    for g, weight, _, rule in _rows(device, dtype):
        yield g, weight, *rule


def flat_steps(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `flat_step`."""
    for g, weight, scales, rule in _rows(device, dtype):
        yield g, weight, scales, *rule


def _rows(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor, tuple[str, float]]]:
    draw = _Draws(device, dtype)
    for numbers in (5000, 20000):
        g, weight, scales = draw(3, numbers), draw(numbers), draw(3) / 64
        for rule in RULES:
            yield g, weight, scales, rule


def logits(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    """Arguments of `cross_entropy`: rows without ties, and labels."""
    generator = torch.Generator("cpu").manual_seed(0)
    for classes in (10, 200):  # bfloat16 holds whole numbers up to 256
        rows = [torch.randperm(classes, generator=generator, device="cpu", dtype=torch.int64) for _ in range(4)]
        z = (torch.stack(rows).to(device, dtype) - classes // 2) / 16
        label = torch.randint(classes, (4,), dtype=torch.int64, generator=generator, device="cpu").to(device)
        yield z, None
        yield z, label
