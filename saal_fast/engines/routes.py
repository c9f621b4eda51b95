"""Which implementation a problem's parts take: chosen once, by device, task and types."""

from __future__ import annotations

from dataclasses import dataclass

from ..objectives import Classification
from ..ops.common import triton as twins
from .layers.conv import Conv
from .layers.linear import Linear
from .problem import Problem

GHOSTED = (Conv, Linear)
"""Layers that `ops/ghost/` knows."""


@dataclass(frozen=True)
class Routes:
    """What the ghost engine hands to fused operations; the rest is PyTorch's own, one operation after the other.

    Attributes:
        ghosts: layers whose factored gradients, of a rule linear in them, go through `ops/ghost/`: on CUDA neither
            T × T matrices nor patches are ever in the device's memory, on a CPU they are passed over less often.
        loss: pseudo-label, loss and the gradient at the logits, by `ops/cross_entropy/`, in one pass.
        packed: the parameters differentiated directly, end to end, by `ops/flat/`: one operation for all of them.
    """

    ghosts: tuple[type, ...]
    loss: bool
    packed: bool


def routes_for(problem: Problem) -> Routes:
    """The routes of a problem.

    Operations for convolutions' factors and the loss serve on CUDA, where launches and passes over memory are what counts;
    their twins for the CPU are plain PyTorch, and `vmap` takes as long to reach an operator as the small operations take
    that it replaces.
    Packing serves anywhere: it costs a CPU what it saves (ResNet-18's 41 vectors at a batch of 4: 1.0 ms either way), and
    leaves a tenth fewer operations to a trace (`traces.py`).

    Only `Classification` itself has its loss fused, no class that inherits from it; parameters of several types are not
    packed.
    """
    fused = problem.device.type == "cuda" and twins.available()
    dtypes = {p.dtype for p in problem.params.values()}
    return Routes(
        ghosts=(Conv, Linear) if fused else (Linear,),
        loss=fused and type(problem.task) is Classification,
        packed=len(dtypes) == 1,
    )
