"""Finds a model's hidden feature maps and averages them over space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.features import first_output, tapped
from ..models.state import module_of
from ..tasks import logits_of


def find_levels(model: nn.Module, pool: Any, channels: int | None = None) -> list[str]:
    """Names of one layer for each level of the model, in the order they run.

    A level is a spatial size; its layer is the last whose output has that size on the pool's first sample (in a ResNet, the
    end of a stage). In a model without maps a level is a width of vectors; the layer that makes the logits is left out. So
    are outputs without a row for each sample (a parametrised weight, a sequence with time first).

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


def average_over_space(model: nn.Module, t: Tensor, channels: int | None = None) -> Tensor:
    """Averages a feature map [B, ...] over space to [B, channels]; half precision is widened to fp32.

    Args:
        model: the model that made the map.
        t: the map; a 2-d one is returned as it is.
        channels: the dimension of its channels; None to infer it from the map's rank and the model.

    Raises:
        ValueError: t is not a floating-point map.
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
