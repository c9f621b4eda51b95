"""Holds a function under `vmap`, with what rescues it, to the same function of each sample alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from saal_fast.engines.branches import Diverged
from saal_fast.engines.under_vmap import Births, SharedWrite, UnderVmap


def under_vmap(function: Callable[..., Any], *inputs: Tensor, births: Births | None = None) -> Any:
    """What `function` gives of all samples at once; they may write into what it makes."""
    births = births or Births(set())

    def of_one(*sample: Tensor) -> Any:
        mode.see(sample)
        return function(*(t.clone() for t in sample))

    try:
        with UnderVmap(births) as mode:
            return vmap(of_one)(*inputs)
    except SharedWrite:
        return under_vmap(function, *inputs, births=births)


def one_by_one(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """What `function` gives of each sample alone."""
    found = [function(*(t[i].clone() for t in inputs)) for i in range(len(inputs[0]))]
    return tree_map(lambda *rows: torch.stack(rows), *found)


def check_same(function: Callable[..., Any], *inputs: Tensor) -> None:
    """All samples at once give what each alone gives, bit for bit; their answers must be the same."""
    torch.testing.assert_close(under_vmap(function, *inputs), one_by_one(function, *inputs), rtol=0, atol=0)


def parts_of(function: Callable[..., Any], *inputs: Tensor) -> list[list[int]]:
    """The parts that samples fall into, sorted by their first."""
    try:
        under_vmap(function, *inputs)
    except Diverged as split:
        return sorted(part.tolist() for part in split.parts)
    return [list(range(len(inputs[0])))]
