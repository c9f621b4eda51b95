"""LL4AL: a module that learns to predict losses from hidden feature maps (Yoo & Kweon, arXiv:1905.03677)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..models.features import BatchSize, each_batch, first_output, module_of, tap, tapped
from ..models.state import unwrap
from ..tasks import logits_of
from .base import (
    OnNonFinite,
    Selection,
    TrainingHook,
    check_batch_size,
    check_on_nonfinite,
    check_request,
    check_whole,
    drawing_from,
    largest,
)
from .hidden import Pooled, find, pooled


class LossPrediction(nn.Module):
    """A linear layer and ReLU over each pooled feature map; these side by side, by a linear layer, to one number.

    Args:
        maps: what the pooled maps are like; name to width.
        width: outputs of each of the linear layers.
    """

    def __init__(self, maps: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.names = list(maps)
        self.layers = nn.ModuleList(nn.Linear(wide, width) for wide in maps.values())
        self.last = nn.Linear(width * len(self.layers), 1)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Predicted losses [B] of pooled maps [B, width of the map]."""
        parts = [layer(maps[name]).relu() for name, layer in zip(self.names, self.layers, strict=True)]
        predicted: Tensor = self.last(torch.cat(parts, 1)).squeeze(1)
        return predicted


def ranking_loss(predicted: Tensor, losses: Tensor, margin: float = 1.0) -> Tensor | None:
    """How far the predictions are from the losses' order, pair by pair (their Eq. 2).

    `max(0, -s (l̂_i - l̂_j) + ξ)` with s = 1 where l_i > l_j, else -1; the mean over pairs (i, i + ⌊B/2⌋). Of an odd batch the
    last sample is left over. The losses are constants.

    Args:
        predicted: l̂, [B].
        losses: l, [B].
        margin: ξ.

    Returns:
        0-d, or None where there is no pair.
    """
    half = len(losses) // 2
    if half == 0:
        return None
    losses = losses.detach()
    sign = torch.where(losses[:half] > losses[half : 2 * half], 1.0, -1.0).to(predicted)
    return (margin - sign * (predicted[:half] - predicted[half : 2 * half])).clamp(min=0).mean()


@dataclass
class LL4AL:
    """Chooses the samples whose loss is predicted to be largest.

    Args:
        layers: names of the layers whose outputs are the feature maps; None to find them: the last output of every spatial
            size (a ResNet's stages), or where there are no maps, of every width.
        width: outputs of the module's linear layers.
        margin: ξ of the ranking loss.
        weight: λ, what the ranking loss is multiplied by.
        stop: epoch from which on the module's gradient no longer reaches the model; None for 0.6 of the epochs (theirs:
            120 of 200).
        channels: dimension of the maps' channels; None for 1, and for maps [B, T, d] of a model without `nn.Conv1d` for 2.
        batch_size: samples at once in `select`, or "auto".
        on_nonfinite: "raise" where outputs hold NaN or inf, or "keep" these samples and never pick one.
    """

    layers: Sequence[str] | None = None
    width: int = 128
    margin: float = 1.0
    weight: float = 1.0
    stop: int | None = None
    channels: int | None = None
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    module: LossPrediction | None = field(default=None, init=False, repr=False)
    name: ClassVar[str] = "ll4al"

    def __post_init__(self) -> None:
        check_on_nonfinite(self.on_nonfinite)
        check_batch_size(self.batch_size)
        check_whole(1, width=self.width)
        if self.stop is not None:
            check_whole(0, stop=self.stop)
        if isinstance(self.layers, str) or (self.layers is not None and not self.layers):
            raise ValueError(f"expected layers as a list of at least one name, or None; got {self.layers!r}")

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; `labelled` is not used, and nothing drawn.

        Raises:
            RuntimeError: no loss prediction module was trained yet, or this model lacks the layers it was trained on.
        """
        check_request(k, pool, generator)
        module = self.module
        if module is None:
            raise RuntimeError("expected LL4AL to be trained with a model first: train it under the hook of training(...)")
        inner = module_of(model)
        taps = _named(inner, module.names)

        with tapped(taps, "output", lambda t: self._pool(inner, t)) as seen:

            def see(output: Any) -> Tensor:
                predicted = module(seen).double()
                known = logits_of(output).flatten(1).isfinite().all(1)
                seen.clear()
                return torch.where(known, predicted, torch.nan).cpu()

            parts = each_batch(inner, pool, see, batch_size=self.batch_size)
        return largest(torch.cat(parts) if parts else torch.empty(0), k, self.on_nonfinite)

    def training(
        self,
        model: nn.Module,
        *,
        pool: Any | None = None,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingHook:
        """A hook that trains a new module along with the model.

        Args:
            model: what will be trained. Its hidden layers are watched until the hook is closed.
            pool: unlabelled samples; one of `pool` and `labelled` is needed, to see the maps' shapes.
            labelled: labelled samples.
            generator: what the module's first weights are drawn from.

        Raises:
            ValueError: neither is given, or the model has no hidden layer.
        """
        samples = labelled if labelled is not None else pool
        if samples is None:
            raise ValueError("expected labelled= or pool=, to find the model's hidden layers by a first sample; got neither")
        inner = module_of(model)
        found = find(inner, samples, self.channels) if self.layers is None else list(self.layers)
        taps = _named(inner, found)
        with tapped(taps, "output", lambda t: self._pool(inner, t)) as maps:
            first_output(inner, samples)
        missing = [n for n in found if n not in maps]
        if missing:
            raise ValueError(f"expected the model to run its layers {missing}; it did not")
        with drawing_from(generator):
            module = LossPrediction({n: maps[n].shape[1] for n in found}, self.width)
        first = maps[found[0]]
        self.module = module.to(first.device, first.dtype)
        return _Hook(self, inner, taps)

    def _pool(self, model: nn.Module, t: Tensor) -> Tensor:
        return pooled(model, t, self.channels)


class _Hook(TrainingHook):
    def __init__(self, strategy: LL4AL, model: nn.Module, taps: Mapping[str, nn.Module]) -> None:
        assert strategy.module is not None
        self.strategy, self.model, self.module = strategy, model, strategy.module
        self.stopped = False
        self.seen: dict[str, Pooled] = {}
        self.handles = [tap(m, "output", lambda t, n=n: self._keep(n, t)) for n, m in taps.items()]  # type: ignore[misc]

    def _keep(self, name: str, t: Tensor) -> None:
        self.seen[name] = pooled(self.model, t, self.strategy.channels)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    def start_epoch(self, epoch: int, epochs: int) -> None:
        stop = self.strategy.stop
        self.stopped = epoch >= (0.6 * epochs if stop is None else stop)

    def loss(self, x: Any, y: Any, losses: Tensor) -> Tensor | None:
        seen, self.seen = self.seen, {}
        got = {len(t) for t in seen.values()}
        if set(seen) != set(self.module.names) or got != {len(losses)}:
            raise RuntimeError(
                f"expected loss() right after the model's forward on the batch of {len(losses)}; the model's last forward "
                f"ran {sorted(seen) or 'none'} of the layers {self.module.names} on batches of {sorted(got)}"
            )
        maps = {n: (t.detach() if self.stopped else t) for n, t in seen.items()}
        extra = ranking_loss(self.module(maps), losses, self.strategy.margin)
        return None if extra is None else self.strategy.weight * extra

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles, self.seen = [], {}

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.stopped = state["stopped"]


def _named(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(unwrap(model).named_modules())
    missing = [n for n in names if n not in modules]
    if missing:
        raise ValueError(f"expected layers of {type(model).__name__}, got {', '.join(map(repr, missing))} which it has not")
    return {n: modules[n] for n in names}
