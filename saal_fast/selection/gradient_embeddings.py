"""BADGE's gradient embeddings, kept as the two factors that they are.

Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds" (ICLR 2020, arXiv:1906.03671),
Section 3: the gradient of the cross-entropy by the last layer's weights is the outer product `a ⊗ h` of the class residual
`a = softmax(z) - onehot(ŷ)` [C] and the last layer's input h [D]. `kmeans_plusplus` takes the pair as it is: C + D numbers
a sample, never C · D.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..models.features import BatchSize, Penultimate, last_layer, penultimate


def gradient_factors(
    model: nn.Module, pool: Any, *, layer: str | None = None, batch_size: BatchSize = "auto"
) -> Penultimate:
    """What each sample's last-layer gradient is made of: features h, and logits for `tasks.logit_gradient`.

    Args:
        model: a classifier; it comes back as it was.
        pool: as for `score`.
        layer: name of the last layer; None for the last `nn.Linear` that the model runs.
        batch_size: samples at once, or "auto".

    Returns:
        Features [N, D] and logits [N, C], on the CPU.

    Raises:
        ValueError: there is no such layer, or it does not make logits [C] of features [D], so that its gradient is no outer
            product; or the pool is empty.
    """
    name, module = last_layer(model, pool, layer)
    found = penultimate(model, pool, layer=name, batch_size=batch_size)
    shape = getattr(getattr(module, "weight", None), "shape", None)
    expected = (found.logits.shape[1], found.features.shape[1])
    if shape != expected:
        got = "without a weight" if shape is None else f"of weight {list(shape)}"
        raise ValueError(
            f"expected the last layer to make the {expected[0]} logits of its {expected[1]} inputs by a weight "
            f"{list(expected)}, got {name!r}, a {type(module).__name__} {got}; name another with layer="
        )
    return found
