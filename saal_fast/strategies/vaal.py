"""VAAL: the samples that a discriminator takes for unlabelled (Sinha et al., arXiv:1904.00370)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from .._utils.checks import check_whole
from .._utils.rng import draw_seed, drawing_from
from ..models.ambient import with_values
from ..models.features import BatchSize, device_of, each_batch
from ..models.state import module_of
from ..pools import Batch, Stream
from .choice import candidates, check_options, check_request
from .protocol import OnNonFinite, Selection, TrainingHook
from .vae import Autoencoder, Discriminator, adversarial_loss, discriminator_loss, elbo_loss, gaussian, reparameterise


@dataclass
class VAAL:
    """Chooses the samples whose codes look least like those of labelled samples to a discriminator.

    A variational autoencoder learns codes by which its discriminator cannot tell labelled from unlabelled samples. Both make
    a step after each step of the model's own training. They see the samples only, never the model. The scores are the
    probabilities of being unlabelled, `1 - D(μ(x))`.

    Args:
        latent: dimensions of the code.
        width: channels of the autoencoder's first layer.
        beta: β, weight of the divergence in the autoencoder's loss.
        adversarial: weight of the adversarial loss in the autoencoder's loss.
        lr: learning rate of Adam for both networks.
        steps: steps of the autoencoder for each step of the discriminator (VAAL's code: 2).
        autoencoder: makes a module with `encode` and `decode`, as `vae.Autoencoder` has them, from a sample's shape; None
            for `vae.Autoencoder`.
        batch_size: samples per batch in `select`, or "auto".
        on_nonfinite: "raise" for an error where inputs lead to NaN or inf, or "keep" to pass these samples over.
    """

    latent: int = 32
    width: int = 128
    beta: float = 1.0
    adversarial: float = 1.0
    lr: float = 5e-4
    steps: int = 1
    autoencoder: Callable[[tuple[int, ...]], nn.Module] | None = None
    batch_size: BatchSize = "auto"
    on_nonfinite: OnNonFinite = "raise"
    judge: EncodedDiscriminator | None = field(default=None, init=False, repr=False)
    name: ClassVar[str] = "vaal"

    def __post_init__(self) -> None:
        check_options(self.batch_size, self.on_nonfinite)
        for name in ("latent", "width", "steps"):
            check_whole(name, getattr(self, name), 1)

    def select(
        self,
        model: nn.Module,
        pool: Any,
        k: int,
        *,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """As `Strategy.select`; it uses neither `model` nor `labelled` and draws nothing.

        Raises:
            RuntimeError: nothing was trained yet.
        """
        check_request(k, pool, generator)
        if self.judge is None:
            raise RuntimeError("expected VAAL to be trained first: train a model under the hook of training(..., pool=...)")
        parts = each_batch(self.judge, pool, lambda odds: odds.squeeze(1).double().cpu(), batch_size=self.batch_size)
        unlabelled = -torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device="cpu")
        good = candidates(unlabelled.isfinite(), k, self.on_nonfinite)
        order = unlabelled[good].argsort(descending=True, stable=True)[:k]  # by log-odds, as probabilities round to 1
        return Selection(good[order], unlabelled.sigmoid().float())

    def training(
        self,
        model: nn.Module,
        *,
        pool: Any | None = None,
        labelled: Any | None = None,
        generator: torch.Generator | None = None,
    ) -> TrainingHook:
        """A hook that trains new networks beside the model, on its batches and on samples drawn from the pool.

        With an empty pool, as after the last round, the hook does nothing.

        Raises:
            ValueError: pool is None.
            TypeError: a sample of the pool is not a single floating-point tensor.
        """
        if pool is None:
            raise ValueError("expected pool=, the unlabelled samples that VAAL learns to tell from labelled ones; got None")
        device = device_of(module_of(model))
        own = torch.Generator("cpu").manual_seed(draw_seed(generator))
        with drawing_from(own):
            unlabelled = PoolSampler(pool, device, own)
            if not len(unlabelled):
                self.judge = None
                return TrainingHook()
            shape = tuple(unlabelled.draw(1).shape[1:])
            vae = Autoencoder(shape, self.latent, self.width) if self.autoencoder is None else self.autoencoder(shape)
            self.judge = EncodedDiscriminator(vae, Discriminator(self.latent)).to(device)
        return _Hook(self, self.judge, unlabelled, own)


class EncodedDiscriminator(nn.Module):
    """The discriminator behind the encoder: log-odds [B, 1] that samples are labelled, from the means of their codes."""

    def __init__(self, vae: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.vae, self.discriminator = vae, discriminator

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        odds: Tensor = self.discriminator(self.vae.encode(single_input((args, kwargs)))[0])  # type: ignore[operator]
        return odds


class _Hook(TrainingHook):
    def __init__(
        self, strategy: VAAL, judge: EncodedDiscriminator, unlabelled: PoolSampler, generator: torch.Generator
    ) -> None:
        self.strategy, self.judge, self.unlabelled, self.generator = strategy, judge, unlabelled, generator
        self.vae: Any = judge.vae
        self.vae_optimizer = torch.optim.Adam(judge.vae.parameters(), lr=strategy.lr)
        self.optimizer = torch.optim.Adam(judge.discriminator.parameters(), lr=strategy.lr)

    @with_values()  # Adam's counters, in older releases of torch
    @torch.inference_mode(False)
    @torch.enable_grad()
    def after_step(self, x: Any, y: Any) -> None:
        labelled = single_input(x).to(device_of(self.judge))
        self.judge.train()
        for _ in range(self.strategy.steps):
            unlabelled = self.unlabelled.draw(len(labelled))
            self._step_of_autoencoder(labelled, unlabelled)
        with torch.no_grad():
            codes = [self.vae.encode(samples)[0] for samples in (labelled, unlabelled)]
        loss = discriminator_loss(*(self.judge.discriminator(code) for code in codes))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        self.optimizer.step()

    def _step_of_autoencoder(self, labelled: Tensor, unlabelled: Tensor) -> None:
        loss, odds = torch.zeros((), dtype=torch.float32, device=labelled.device), []
        for samples in (labelled, unlabelled):
            mean, log_variance = self.vae.encode(samples)
            decoded = self.vae.decode(reparameterise(mean, log_variance, gaussian(mean, self.generator)))
            loss = loss + elbo_loss(samples, decoded, mean, log_variance, self.strategy.beta)
            odds.append(self.judge.discriminator(mean))
        loss = loss + self.strategy.adversarial * adversarial_loss(*odds)
        self.vae_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        self.vae_optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "judge": self.judge.state_dict(),
            "vae_optimizer": self.vae_optimizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.judge.load_state_dict(state["judge"])
        self.vae_optimizer.load_state_dict(state["vae_optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


class PoolSampler:
    """Draws samples uniformly from a pool, with replacement.

    Tensors, arrays, lists and datasets are indexed; a pool that cannot be indexed by number (a `DataLoader`, an
    `IterableDataset`, a mapping) is read once and kept.
    """

    def __init__(self, pool: Any, device: torch.device, generator: torch.Generator) -> None:
        self._device, self._generator = device, generator
        if isinstance(pool, DataLoader | IterableDataset | Mapping):
            parts = [_single_input_of(batch) for batch in Stream(pool, torch.device("cpu")).batches(1024)]
            pool = torch.cat(parts) if parts else torch.empty(0, dtype=torch.float32, device="cpu")
        self._pool = pool

    def __len__(self) -> int:
        return len(self._pool)

    def draw(self, size: int) -> Tensor:
        """Draws `size` samples; [size, ...] on the device."""
        picks = torch.randint(len(self._pool), (size,), generator=self._generator, device="cpu")
        if isinstance(self._pool, Tensor | np.ndarray):
            part: Any = self._pool[picks if isinstance(self._pool, Tensor) else picks.numpy()]
        else:
            with drawing_from(self._generator):  # a dataset may draw from the global generator
                part = [self._pool[i] for i in picks.tolist()]
        (batch,) = Stream(part, self._device).batches(size)
        return _single_input_of(batch)


def single_input(inputs: Any) -> Tensor:
    """The only tensor in a model's inputs (a pytree), as fp32.

    Raises:
        TypeError: the inputs are not a single floating-point tensor.
    """
    found = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
    if len(found) != 1 or not found[0].is_floating_point():
        got = ", ".join(f"{t.dtype} {list(t.shape)}" for t in found) or "none"
        raise TypeError(f"expected inputs of one floating-point tensor, which VAAL encodes and decodes; got {got}")
    return found[0].float()


def _single_input_of(batch: Batch) -> Tensor:
    return single_input((batch.args, batch.kwargs))
