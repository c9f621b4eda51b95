"""Evaluation of a round's model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .._utils.arrays import as_tensor
from .._utils.checks import check_whole
from ..models.features import device_of
from ..pools import Stream
from ..tasks import logits_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The share of samples whose largest logit is that of their label.

    Attributes:
        inputs: a pool, as for `saal_fast.score`.
        labels: whole numbers [N], a tensor or what `torch.as_tensor` takes.
        batch_size: samples per batch.
    """

    inputs: Any
    labels: Any
    batch_size: int = 250

    def __post_init__(self) -> None:
        """Checks the arguments and converts the labels to a tensor.

        Raises:
            TypeError: labels or batch_size are not whole numbers.
            ValueError: labels have another shape than [N], or batch_size is below 1.
        """
        labels = as_tensor(self.labels).cpu()
        if labels.ndim != 1:
            raise ValueError(f"expected labels of shape [N], a class for each sample; got {list(labels.shape)}")
        if len(labels) and (labels.is_floating_point() or labels.is_complex()):
            raise TypeError(f"expected labels as whole numbers, got {labels.dtype}")
        check_whole("batch_size", self.batch_size, 1)
        object.__setattr__(self, "labels", labels)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Evaluates `model`: its `accuracy`, in [0, 1].

        Raises:
            ValueError: the numbers of labels and samples differ, or are 0.
        """
        device = device_of(model)
        guesses = [
            logits_of(model(*batch.args, **batch.kwargs)).argmax(1).cpu()
            for batch in Stream(self.inputs, device).batches(self.batch_size)
        ]
        guessed = torch.cat(guesses) if guesses else torch.zeros(0, dtype=torch.int64, device="cpu")
        if not len(guessed) == len(self.labels) > 0:
            raise ValueError(
                f"expected a label for each of the {len(guessed)} samples (at least one), got {len(self.labels)}"
            )
        return {"accuracy": int((guessed == self.labels).sum()) / len(guessed)}
