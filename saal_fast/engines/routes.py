"""Which implementation a problem's parts take: chosen once, by device, task and types."""

from __future__ import annotations

from dataclasses import dataclass

from ..objectives import Classification
from ..ops import triton as twins
from .problem import Problem


@dataclass(frozen=True)
class Routes:
    """What the ghost engine hands to fused operations; the rest is PyTorch's own, one operation after the other.

    Attributes:
        ghosts: factored gradients of a rule linear in them, by `ops/ghost_l2.py`: neither T × T matrices nor patches are
            ever in the device's memory.
        loss: pseudo-label, loss and the gradient at the logits, by `ops/cross_entropy.py`, in one pass.
        packed: the parameters differentiated directly, end to end, by `ops/direct.py`: one operation for all of them.
    """

    ghosts: bool
    loss: bool
    packed: bool


def routes_for(problem: Problem) -> Routes:
    """The routes of a problem.

    They serve on CUDA, where launches and passes over memory are what counts. On a CPU their twins are plain PyTorch too,
    and `vmap` takes as long to reach an operator, or to take a view of a row, as the many small operations take that they
    replace (ResNet-18's 41 vectors at a batch of 4, norm and step: 1.0 ms either way).

    Only `Classification` itself has its loss fused, no class that inherits from it; parameters of several types are not
    packed.
    """
    fused = problem.device.type == "cuda" and twins.available()
    dtypes = {p.dtype for p in problem.params.values()}
    return Routes(ghosts=fused, loss=fused and type(problem.task) is Classification, packed=fused and len(dtypes) == 1)
