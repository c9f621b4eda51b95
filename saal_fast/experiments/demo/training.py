"""The demonstration's training loop."""

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
    """Fits `model` in place by Adam (the paper's optimiser and rate), and leaves it in evaluation mode.

    Args:
        model: maps images to logits.
        images: float32 [N, C, H, W].
        labels: int64 [N].
        epochs: passes over the images.
        seed: seed of the images' order.
        batch_size: largest number of images in a step.
        learning_rate: Adam's learning rate.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    steps = -(-len(labels) // batch_size)
    model.train()
    for _ in tqdm(range(epochs), desc="training", unit="epoch", leave=False, disable=None):
        # Batches of nearly equal size: batch norm cannot train on a last batch of one image.
        for batch in torch.randperm(len(labels), generator=generator).tensor_split(steps):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    model.eval()
