"""What a model of a round is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .._utils.checks import is_whole
from ..models.features import device_of
from ..pools import Stream
from ..tasks import logits_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The share of samples whose largest logit is at their label.

    Attributes:
        inputs: a pool, as for `saal_fast.score`.
        labels: whole numbers; [N], a tensor or anything it can be made of.
        batch_size: samples at once.
    """

    inputs: Any
    labels: Any
    batch_size: int = 250

    def __post_init__(self) -> None:
        """Makes the labels a tensor.

        Raises:
            TypeError: they are no whole numbers, or batch_size is none.
            ValueError: they are of another shape than [N], or batch_size is below 1.
        """
        labels = torch.as_tensor(self.labels).cpu()
        if labels.ndim != 1:
            raise ValueError(f"expected labels of shape [N], a class for each sample; got {list(labels.shape)}")
        if len(labels) and (labels.is_floating_point() or labels.is_complex()):
            raise TypeError(f"expected labels as whole numbers, got {labels.dtype}")
        if not is_whole(self.batch_size):
            raise TypeError(f"expected batch_size to be a whole number, got {self.batch_size!r}")
        if self.batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {self.batch_size}")
        object.__setattr__(self, "labels", labels)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`accuracy` of `model`, in [0, 1].

        Raises:
            ValueError: there are more or fewer labels than samples.
        """
        device = device_of(model)
        guesses = [
            logits_of(model(*batch.args, **batch.kwargs)).argmax(1).cpu()
            for batch in Stream(self.inputs, device).batches(self.batch_size)
        ]
        guessed = torch.cat(guesses) if guesses else torch.zeros(0, dtype=torch.int64)
        if not len(guessed) == len(self.labels) > 0:
            raise ValueError(
                f"expected a label for each of the {len(guessed)} samples (at least one), got {len(self.labels)}"
            )
        return {"accuracy": int((guessed == self.labels).sum()) / len(guessed)}
