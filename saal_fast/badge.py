"""BADGE's gradient embeddings, kept as the two factors that they are.

Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds" (ICLR 2020, arXiv:1906.03671),
Section 3: the gradient of the cross-entropy by the last layer's weights is the outer product `a ⊗ h` of the class residual
`a = softmax(z) − onehot(ŷ)` [C] and the last layer's input h [D]. `kmeans_plusplus` takes the pair as it is: C + D numbers
a sample, never C · D.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .engines import Problem
from .isolation import untouched, unwrap
from .objectives import Classification, logits_of
from .perturbation import L2
from .pools import Batch, Stream

LOSS_TOLERANCE = {"rtol": 1e-2, "atol": 1e-3}
"""How far the losses of two passes over one pool may be apart, by rounding."""


def gradient_factors(
    model: nn.Module,
    pool: Any,
    label: Tensor,
    *,
    loss: Tensor | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """The last layer's gradients of each sample of a pool, in factors.

    Args:
        model: A classifier that ends with an `nn.Linear`, whose output its logits are; it comes back as it was.
        pool: As for `score`.
        label: What the losses are taken under, such as pseudo-labels ŷ; int64 [N].
        loss: Each sample's loss [N] in an earlier pass over the pool, to tell a pool that changes its order.
        device: Where to run; None for where the model is.
        batch_size: Samples at once.

    Returns:
        (a, h): residuals [N, C] and features [N, D], on the device; sample i's gradient is `a_i ⊗ h_i`.

    Raises:
        ValueError: The model's logits aren't the output of its last `nn.Linear`, or the pool gives other samples, or
            another number of them, than there are labels and losses for.
    """
    model = unwrap(model)
    with untouched(model), torch.inference_mode(False), torch.no_grad():
        where = None if device is None else torch.empty(0, device=device).device
        problem = Problem.of(model, L2(0.0), Classification(), None, where)
        parts = []
        start = 0
        for batch in Stream(pool, problem.device).batches(batch_size):
            start = batch.start + batch.size
            if start > len(label):
                raise ValueError(f"expected the pool to give {len(label)} samples again, got more")
            here = slice(batch.start, start)
            residual, features, losses = _of_batch(problem, batch, label[here])
            if loss is not None and not torch.allclose(
                losses.cpu().to(loss.dtype), loss[here], **LOSS_TOLERANCE, equal_nan=True
            ):
                raise ValueError(
                    "expected the pool to give the same samples in the same order twice; the losses differ between samples "
                    f"{batch.start} and {start - 1} (does a DataLoader shuffle?)"
                )
            parts.append((residual, features))
    if start != len(label):
        raise ValueError(f"expected the pool to give {len(label)} samples again, got {start}")
    return torch.cat([a for a, _ in parts]), torch.cat([h for _, h in parts])


def _of_batch(problem: Problem, batch: Batch, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals [B, C], features [B, D] and losses [B] of a batch."""
    last: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        last[:] = [(inputs[0].detach().clone(), output)]

    hooks = [module.register_forward_hook(keep) for module in problem.model.modules() if isinstance(module, nn.Linear)]
    try:
        output = problem.output(problem.params, batch.args, batch.kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    logits = logits_of(output)
    if not last or last[0][1].shape != logits.shape or last[0][0].ndim != 2 or not _same(last[0][1], logits):
        got = "it runs none" if not last else f"that gives {list(last[0][1].shape)} and the logits are {list(logits.shape)}"
        raise ValueError(
            "expected a model whose logits [B, C] are the output of its last nn.Linear, for the gradient embeddings of "
            f'diversity="badge"; of {type(problem.model).__name__} {got}'
        )
    label = label.to(logits.device)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    residual = wide.softmax(1) - nn.functional.one_hot(label, logits.shape[1])
    return residual, last[0][0].to(wide.dtype), problem.task.loss(output, label)


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or bool(((a == b) | (a.isnan() & b.isnan())).all())
