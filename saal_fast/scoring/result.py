"""`Scores`: what scoring returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..engines import Problem, Result
from ..engines.problem import concatenate

Objective = Literal["max", "diff"]


@dataclass(frozen=True)
class Scores:
    """The scores of a pool's samples, and what they consist of; tensors on the CPU, in the pool's order.

    Attributes:
        perturbed_loss: `max_{‖ε‖≤ρ} l(x, ŷ; θ+ε)` (Eq. 6); [N].
        loss: `l(x, ŷ; θ)`; [N].
        grad_norm: norm of the sample's gradient, dual to the perturbation's: ‖g‖₂ for norm=2, ‖g‖_q with 1/p + 1/q = 1 for
            norm=p, ‖|w|⊙g‖₂ for adaptive. The loss grows by `ρ · grad_norm` to first order (Theorem 3.3); [N].
        label: the label the losses were taken under: the pseudo-label ŷ, or the given one; int64 [N], or the task's pytree.
        perturbed_label: what the perturbed model predicts; like `label`.
        finite: False where outputs or losses hold NaN or inf (only with `on_nonfinite="keep"`); bool [N].
        engine: name of the engine that scored.
        fallback: why "auto" did not stay with ghost, or which samples the reference scored instead; None if neither.
        embedding: with `embeddings=True` each sample's gradient by the last linear layer under `label`, as factors
            (a [N, C], h [N, D]) of the outer product `a ⊗ h` (BADGE, arXiv:1906.03671, Section 3); else None.
        checked: what the self-check found, "agreed on samples 0, 17" or "left out: ..." with the reason, also where it is
            remembered from an earlier call; None with `check=False` and of an empty pool.
    """

    perturbed_loss: Tensor
    loss: Tensor
    grad_norm: Tensor
    label: Any
    perturbed_label: Any
    finite: Tensor
    engine: str
    fallback: str | None
    embedding: tuple[Tensor, Tensor] | None = None
    checked: str | None = None

    @property
    def sharpness(self) -> Tensor:
        """Perturbed minus plain loss; [N]."""
        return self.perturbed_loss - self.loss

    def by(self, objective: Objective) -> Tensor:
        """What `score(objective=...)` returns; [N]."""
        return self.perturbed_loss if objective == "max" else self.sharpness

    def __len__(self) -> int:
        return len(self.perturbed_loss)


def gather(results: Sequence[Result], engine: str, fallback: str | None) -> Scores:
    """The results of all batches, joined, on the CPU: float32, or float64 where a batch's are."""
    joined = concatenate([tree_map(Tensor.cpu, r) for r in results])
    dtype = torch.float64 if joined.perturbed_loss.dtype == torch.float64 else torch.float32
    return Scores(
        joined.perturbed_loss.to(dtype),
        joined.loss.to(dtype),
        joined.grad_norm.to(dtype),
        joined.label,
        joined.perturbed_label,
        joined.finite,
        engine,
        fallback,
        (joined.embedding[0].to(dtype), joined.embedding[1].to(dtype)) if joined.embedding else None,
    )


def no_scores(problem: Problem) -> Scores:
    """The scores of an empty pool."""
    double = any(p.dtype == torch.float64 for p in problem.params.values())
    none, label = (
        torch.empty(0, dtype=torch.float64 if double else torch.float32, device="cpu"),
        torch.empty(0, dtype=torch.int64, device="cpu"),
    )
    embedding = (none.reshape(0, 0), none.reshape(0, 0)) if problem.embeddings else None
    finite = torch.empty(0, dtype=torch.bool, device="cpu")
    return Scores(none, none, none, label, label, finite, "none: the pool is empty", None, embedding)
