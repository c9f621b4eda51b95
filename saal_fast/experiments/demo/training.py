"""A plain training loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm


def train(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> None:
    """Fit `model` in place with Adam (the paper's optimiser and rate), and leave it in evaluation mode.

    Args:
        model: from images to logits.
        images: float32 [N, C, H, W].
        labels: int64 [N].
        epochs: passes over the images.
        seed: of the order they come in.
        batch_size: images a step, at most.
        learning_rate: Adam's.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = -(-len(labels) // batch_size)
    model.train()
    for _ in tqdm(range(epochs), desc="training", unit="epoch", leave=False, disable=None):
        # Batches of nearly equal size: a last one of a single image would starve the batch norms.
        for batch in torch.randperm(len(labels), generator=generator).tensor_split(steps):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int = 256) -> float:
    """The share of `images` [N, C, H, W] whose largest logit is at their label [N]."""
    guesses = torch.cat([model(batch).argmax(1) for batch in torch.split(images, batch_size)])
    return float((guesses == labels).float().mean())
