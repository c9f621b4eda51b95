"""The protocol that every strategy follows: `Strategy` with its `Selection` and its `TrainingHook`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

OnNonFinite = Literal["raise", "keep"]


@dataclass(frozen=True)
class Selection:
    """Which samples to label next; tensors on the CPU.

    Attributes:
        indices: positions in the pool, the best first; int64 [k].
        scores: the strategy's score of every sample in the pool, larger for samples it prefers; NaN where it has none;
            float32 [N].
    """

    indices: Tensor
    scores: Tensor


class TrainingHook:
    """What a strategy does while the model is trained. This one does nothing, for strategies without training.

    A training loop that serves every strategy:

        hook = strategy.training(model, pool=unlabelled, labelled=labelled, generator=g)
        optimizer = Adam([{"params": model.parameters()}, {"params": hook.parameters()}])
        try:
            for epoch in range(epochs):
                hook.start_epoch(epoch, epochs)
                for x, y in loader:
                    losses = F.cross_entropy(model(x), y, reduction="none")
                    extra = hook.loss(x, y, losses)
                    ...                                   # backward of losses.mean() + extra, optimiser's step
                    hook.after_step(x, y)
        finally:
            hook.close()
    """

    def parameters(self) -> list[nn.Parameter]:
        """The strategy's own parameters, which the optimiser trains in a group of their own."""
        return []

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Epoch `epoch` (from 0) of `epochs` begins."""

    def loss(self, x: Any, y: Any, losses: Tensor) -> Tensor | None:
        """The strategy's own loss, to be added to the mean of `losses`.

        Call it after the model's forward on x, before anything else runs the model.

        Args:
            x: the batch's inputs.
            y: the batch's labels.
            losses: the loss of each sample, with its graph; [B].

        Returns:
            A loss with its graph, 0-d, or None.
        """
        return None

    def after_step(self, x: Any, y: Any) -> None:
        """The optimiser has made its step on this batch."""

    def close(self) -> None:
        """Detaches the hook from the model. Call it however training ended; a second call does nothing."""

    def state_dict(self) -> dict[str, Any]:
        """What the strategy has learnt so far, and the state of its generators."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""


@runtime_checkable
class Strategy(Protocol):
    """Chooses which samples of a pool to label next.

    What a strategy learns while the model is trained (a loss prediction module, a discriminator) it keeps on itself, from
    `training` to `select`.
    """

    @property
    def name(self) -> str:
        """Its name in `strategies.make`."""
        ...

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """Chooses k different samples of the pool and leaves the model as it was, bit for bit.

        Args:
            model: any `nn.Module`, as for `saal_fast.score`.
            pool: the unlabelled samples, as for `saal_fast.score`.
            k: how many; 1 <= k <= N.
            labelled: the samples labelled so far, in any kind of pool, whose labels are ignored; None if they are unknown.
            generator: source of every draw, on the CPU; None for fresh entropy. The global generators are never drawn from.

        Raises:
            TypeError: k is not a whole number, or generator is not a generator.
            ValueError: k < 1, or more than the samples there are to choose from.
            NonFiniteError: the model's outputs hold NaN or inf, and the strategy's `on_nonfinite` is "raise".
        """
        ...

    def training(
        self,
        model: nn.Module,
        *,
        pool: Any | None = None,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingHook:
        """The hook to call while `model` is trained, before `select`.

        Args:
            model: the model that will be trained.
            pool: the unlabelled samples.
            labelled: the samples it will be trained on.
            generator: as in `select`.
        """
        ...


class WithoutTraining:
    """Base class of strategies that learn nothing while the model is trained."""

    def training(
        self,
        model: nn.Module,
        *,
        pool: Any | None = None,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingHook:
        """A hook that does nothing."""
        return TrainingHook()
