"""What passes over one sample have shown of a model, which holds while its structure does: plans, memory, writes.

`score` keeps it by model object (`scoring/known.py`), so that a further call need not find it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..pools import Batch


@dataclass
class Findings:
    """What is known of a model besides its habits; plans and activations by the shapes of a sample's inputs (`shapes_of`).

    Attributes:
        plans: the ghost engine's, by its choice of modes and shapes.
        activations: bytes that a forward pass of one sample allocates.
        sites: places in the model's code that make tensors which samples write into (`under_vmap.py`).
    """

    plans: dict[Any, Any] = field(default_factory=dict)
    activations: dict[Any, int] = field(default_factory=dict)
    sites: set[Any] = field(default_factory=set)


def shapes_of(batch: Batch) -> tuple[Any, ...]:
    """The shapes of a sample's inputs."""
    return tuple(t.shape[1:] if isinstance(t, Tensor) else None for t in tree_leaves((batch.args, batch.kwargs)))
