"""What every strategy is: the protocol, and the few checks that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .._utils.checks import is_whole
from ..pools import Stream
from ..scoring.nonfinite import NonFiniteError

OnNonFinite = Literal["raise", "keep"]


@dataclass(frozen=True)
class Selection:
    """Which samples to label next; tensors on the CPU.

    Attributes:
        indices: positions in the pool, the best first; int64 [k].
        scores: what the strategy holds of every sample of the pool, larger for what it would rather have labelled; NaN where
            it holds nothing; float32 [N].
    """

    indices: Tensor
    scores: Tensor


class TrainingHook:
    """What a strategy does while the model is trained. This one does nothing: it is that of a strategy without training.

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
        """Parameters of the strategy's own, for the optimiser to train along with the model's (a group of their own)."""
        return []

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Epoch `epoch` (from 0) of `epochs` begins."""

    def loss(self, x: Any, y: Any, losses: Tensor) -> Tensor | None:
        """What is added to the mean of the losses; called after the model's forward on x, before anything else runs it.

        Args:
            x: the batch's inputs.
            y: the batch's labels.
            losses: the batch's loss of each sample, with its graph; [B].

        Returns:
            A number with its graph, 0-d, or None.
        """
        return None

    def after_step(self, x: Any, y: Any) -> None:
        """The optimiser has made its step on this batch."""

    def close(self) -> None:
        """Takes back whatever was attached to the model; called however training ended, also twice."""

    def state_dict(self) -> dict[str, Any]:
        """What was learnt so far, and the state of the generators drawn from."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""


@runtime_checkable
class Strategy(Protocol):
    """Chooses which samples of a pool to label next.

    What a strategy learns while the model is trained (a loss prediction module, a discriminator) it keeps on itself, from
    `training` to `select`.
    """

    @property
    def name(self) -> str:
        """What `make` knows it by."""
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
        """Chooses k different samples of the pool; the model comes back as it was, bit for bit.

        Args:
            model: any `nn.Module`, as for `saal_fast.score`.
            pool: the unlabelled samples, as for `saal_fast.score`.
            k: how many; 1 <= k <= N.
            labelled: the samples labelled so far, of any of the pool's kinds; labels in them are ignored. None: not known.
            generator: source of every draw, on the CPU; None for fresh entropy. The global generators are never drawn from.

        Raises:
            TypeError: k is no whole number, or generator is no generator.
            ValueError: k < 1, or more than the samples there are to choose from.
            NonFiniteError: the model's outputs hold NaN or inf (unless the strategy was told to keep and never pick them).
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
        """What to call while `model` is trained, before `select`.

        Args:
            model: the model that will be trained.
            pool: the unlabelled samples.
            labelled: the samples it will be trained on.
            generator: as in `select`.
        """
        ...


class TrainsNothing:
    """Base of strategies that leave training alone."""

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


# --- shared checks and draws ----------------------------------------------------------------------


def check_request(k: int, pool: Any, generator: Any) -> None:
    """Raises, before any work is done, where k is no number of samples that the pool can give, or generator is none."""
    check_generator(generator)
    if not is_whole(k):
        raise TypeError(f"expected k to be a whole number, got {k!r} ({type(k).__name__})")
    if k < 1:
        raise ValueError(f"expected k >= 1, got k={k}")
    length = Stream(pool, torch.device("cpu")).length
    if length is not None and k > length:
        raise ValueError(f"expected k <= {length}, the size of the pool; got k={k}")


def check_generator(generator: Any) -> None:
    """Raises where `generator` is neither a generator nor None."""
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"expected generator to be a torch.Generator or None, got {type(generator).__name__}")


def check_on_nonfinite(value: str) -> None:
    """Raises where `value` is none of the ways to take NaN and inf."""
    if value not in ("raise", "keep"):
        raise ValueError(f"expected on_nonfinite to be 'raise' or 'keep', got {value!r}")


def check_batch_size(value: Any) -> None:
    """Raises where `value` is neither "auto" nor a number of samples."""
    if value != "auto" and (not is_whole(value) or value < 1):
        raise ValueError(f'expected batch_size to be "auto" or a whole number >= 1, got {value!r}')


def check_whole(least: int, **values: Any) -> None:
    """Raises where one of the values is no whole number, or below `least`."""
    for name, value in values.items():
        if not is_whole(value):
            raise TypeError(f"expected {name} to be a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"expected {name} >= {least}, got {value}")


def candidates(finite: Tensor, k: int, on_nonfinite: OnNonFinite) -> Tensor:
    """Positions of the samples to choose from: those that are finite.

    Args:
        finite: which samples' outputs hold neither NaN nor inf; bool [N].
        k: how many will be chosen.
        on_nonfinite: "raise" or "keep" (and never pick) the others.

    Returns:
        int64 [M], k <= M <= N.

    Raises:
        NonFiniteError: there are others, on "raise"; the message names the first.
        ValueError: fewer than k remain.
    """
    bad = (~finite).nonzero()[:, 0].tolist()
    if bad and on_nonfinite == "raise":
        first = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise NonFiniteError(
            f"expected finite outputs, got NaN or inf for {len(bad)} of the pool's {len(finite)} samples: {first}. "
            'on_nonfinite="keep" keeps them and never picks one'
        )
    good = finite.nonzero()[:, 0]
    if k > len(good):
        what = "whose outputs are finite" if bad else "the size of the pool"
        raise ValueError(f"expected k <= {len(good)}, {what}; got k={k}")
    return good


def largest(scores: Tensor, k: int, on_nonfinite: OnNonFinite = "raise") -> Selection:
    """The k largest scores [N], of equals the earlier sample; what is not finite as `candidates` has it."""
    good = candidates(scores.isfinite(), k, on_nonfinite)
    order = scores[good].argsort(descending=True, stable=True)[:k]
    return Selection(good[order], scores.float())


def or_fresh(generator: torch.Generator | None) -> torch.Generator:
    """The generator itself, or one of fresh entropy."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    check_generator(generator)
    return generator


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Inside, torch's global CPU generator follows `generator` (which moves on by one draw); after, it is as it was."""
    seed = int(torch.randint(2**62, (), generator=or_fresh(generator)))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
