"""Which implementation the parts of a problem take: chosen once, by device, task and types."""

from __future__ import annotations

from dataclasses import dataclass

from ...ops.common import triton
from ...tasks import Classification
from ..layers.conv import Conv
from ..layers.rows import Rows
from ..problem import Problem


@dataclass(frozen=True)
class Backends:
    """What the ghost engine hands to fused operations; the rest is PyTorch's own, one operation after the other.

    Attributes:
        fused_layers: layers whose ghost norm and step (rules linear in the gradient) one operation each computes: on CUDA
            neither T × T matrices nor patches are ever in the device's memory, on a CPU there are fewer passes over them.
        fused_loss: one pass computes pseudo-label, loss and the gradient at the logits.
        flat: the parameters that autograd differentiates lie end to end, and one operation serves all of them.
    """

    fused_layers: tuple[type, ...]
    fused_loss: bool
    flat: bool


def backends_for(problem: Problem, *, fused: bool | None = None) -> Backends:
    """The backends of a problem.

    The operations for convolutions' factors and the loss serve on CUDA, where launches and passes over memory are what
    counts; on a CPU they would be plain PyTorch, and `vmap` takes as long to reach an operator as the small operations take
    that it replaces. Flat gradients serve anywhere: they cost a CPU what they save (ResNet-18's 41 vectors at a batch of 4:
    1.0 ms either way), and leave a tenth fewer operations to a captured trace.

    Only `Classification` itself has its loss fused, no class that inherits from it, and not for a model whose backward pass
    may not be linear, since the fused loss scales the gradient; parameters of several types do not lie
    end to end.

    Args:
        problem: what is scored.
        fused: whether the CUDA kernels serve; None for so on CUDA, where Triton is installed.
    """
    if fused is None:
        fused = problem.device.type == "cuda" and triton.available()
    dtypes = {p.dtype for p in problem.params.values()}
    return Backends(
        fused_layers=(Conv, Rows) if fused else (Rows,),
        fused_loss=fused and type(problem.task) is Classification and not problem.habits.own_backward,
        flat=len(dtypes) == 1,
    )
