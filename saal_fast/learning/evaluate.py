"""What a model of a round is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..features import device_of
from ..objectives import logits_of
from ..pools import Stream

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The share of samples whose largest logit is at their label.

    Attributes:
        inputs: a pool, as for `saal_fast.score`.
        labels: int64 [N].
        batch_size: samples at once.
    """

    inputs: Any
    labels: Tensor
    batch_size: int = 250

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
