"""Finding a model's hidden feature maps, and their global average pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.features import first_output, module_of, tapped
from ..tasks import logits_of

Pooled = Tensor
"""A feature map's mean over space; [B, channels]."""


def find(model: nn.Module, pool: Any, channels: int | None = None) -> list[str]:
    """Names of the layers whose outputs stand for the model's levels, in the order they run.

    Of all modules that give a map of one spatial size on the pool's first sample, the last; in a ResNet these are its
    stages. Where there are no maps, of all modules that give vectors of one width, the last, but none that gives the logits.
    What has not a row for each sample (a parametrised weight, a sequence with time first) is left out.

    Raises:
        ValueError: the model has no such layer, or the pool is empty.
    """
    inner = module_of(model)
    modules = {name: m for name, m in inner.named_modules() if name}
    with tapped(modules, "output") as of_two:
        first_output(inner, pool, copies=2)
    with tapped(modules, "output") as seen:
        output = logits_of(first_output(inner, pool))
    rows = {name: (len(t), len(of_two[name])) for name, t in seen.items() if t.ndim > 1 and name in of_two}
    floating = {name: seen[name] for name, r in rows.items() if r == (1, 2) and seen[name].is_floating_point()}
    levels: dict[tuple[int, ...], str] = {}
    for name, t in floating.items():
        space = _space(inner, t, channels)
        if torch.Size(space).numel() > 1 and t.ndim > 2:
            _put_last(levels, space, name)
    if not levels:
        for name, t in floating.items():
            vector = t.flatten(1)
            if vector.shape != output.shape or not torch.equal(vector, output):
                _put_last(levels, tuple(vector.shape[1:]), name)
    if not levels:
        raise ValueError(
            f"expected a model with hidden layers, to predict losses from; found none in {type(inner).__name__}"
        )
    return list(levels.values())


def pooled(model: nn.Module, t: Tensor, channels: int | None = None) -> Pooled:
    """The mean of a map over space, half precision widened to fp32: [B, ...] to [B, channels].

    Args:
        model: whose map it is.
        t: the map; 2-d ones are taken as they are.
        channels: its dimension of channels; None to tell by its rank and the model.
    """
    if not t.is_floating_point() or t.ndim < 2:
        raise ValueError(f"expected a hidden layer to give a floating-point map [B, ...], got {t.dtype} {list(t.shape)}")
    t = t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
    return t if t.ndim == 2 else t.movedim(_channels(model, t, channels), 1).flatten(2).mean(2)


def _channels(model: nn.Module, t: Tensor, channels: int | None) -> int:
    if channels is not None:
        return channels
    tokens = t.ndim == 3 and not any(isinstance(m, nn.Conv1d) for m in model.modules())
    return -1 if tokens else 1


def _space(model: nn.Module, t: Tensor, channels: int | None) -> tuple[int, ...]:
    return tuple(t.movedim(_channels(model, t, channels), 1).shape[2:]) if t.ndim > 2 else ()


def _put_last(levels: dict[tuple[int, ...], str], key: tuple[int, ...], name: str) -> None:
    levels.pop(key, None)
    levels[key] = name
