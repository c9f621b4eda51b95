"""The gradient by a classifier's last linear layer, kept as the two factors that it is (BADGE, arXiv:1906.03671, Section 3).

The cross-entropy's gradient by the weight [C, D] of the layer that makes the logits is the outer product `a ⊗ h` of its
gradient a by the logits [C] and the layer's input h [D]. A scoring pass holds both, so that they cost no further pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..tasks import class_logits, logit_gradient


class LastLinear(TorchFunctionMode):
    """Keeps the input and the weight of the last `F.linear` call of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.input: Tensor | None = None
        self.weight: Tensor | None = None
        self.output: Tensor | None = None

    def __torch_function__(
        self, fn: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the call."""
        kwargs = kwargs or {}
        if fn is F.linear:
            self.input = args[0] if args else kwargs["input"]
            self.weight = args[1] if len(args) > 1 else kwargs["weight"]
            self.output = fn(*args, **kwargs)
            return self.output
        return fn(*args, **kwargs)

    def check(self, output: Any) -> None:
        """Raises ValueError unless the last linear layer's output is the logits of a batch of one, bit for bit."""
        z = class_logits(output)
        self.gradient(output, z.argmax(1))
        made = None if self.output is None else self.output.reshape(1, -1).to(z.dtype)
        if made is None or made.shape != z.shape or not torch.allclose(made, z, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                "expected the output of the last linear layer to be the logits, for gradients by its weight; the model "
                "changes it (a factor, a softmax), or another layer makes the logits"
            )

    def gradient(self, output: Any, label: Tensor) -> tuple[Tensor, Tensor]:
        """The factors (a [1, C], h [1, D]) of the gradient by the last layer's weight, for a batch of one.

        Args:
            output: what the model returned.
            label: int64 [1].

        Raises:
            ValueError: the model ran no linear layer, or the last one does not make the logits [C] of features [D].
        """
        if self.input is None or self.weight is None:
            raise ValueError(
                "expected a model whose logits a linear layer (torch.nn.functional.linear) makes, for gradients by its last "
                "layer; it runs none"
            )
        z = class_logits(output)
        h = self.input.detach().reshape(1, -1)
        expected = (z.shape[1], h.shape[1])
        if self.weight.shape != expected:
            raise ValueError(
                f"expected the last linear layer to make the {expected[0]} logits of its {expected[1]} inputs by a weight "
                f"{list(expected)}, got a layer of weight {list(self.weight.shape)}"
            )
        return logit_gradient(z.detach(), label), h.to(z.dtype)
