"""VAAL's networks and losses: a variational autoencoder, and a discriminator of its latent codes (arXiv:1904.00370)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._utils.defaults import PLAIN


class Autoencoder(nn.Module):
    """Encodes samples of one shape as Gaussians of `latent` dimensions, and decodes codes.

    Images [C, H, W] of 4 × 4 pixels or more go through strided convolutions (four from 32 pixels on, as in VAAL's code),
    padded to a size that these divide. All other samples are flattened and go through two linear layers.

    Args:
        shape: shape of one sample.
        latent: dimensions of the code.
        width: channels of the first convolution; each further one has twice as many. Linear layers have 4 · width outputs.
    """

    def __init__(self, shape: Sequence[int], latent: int = 32, width: int = 128) -> None:
        super().__init__()
        self.shape = tuple(shape)
        if len(self.shape) == 3 and min(self.shape[1:]) >= 4:
            depth = min(4, int(math.log2(min(self.shape[1:]))) - 1)
            self.padded = tuple(math.ceil(n / 2**depth) * 2**depth for n in self.shape[1:])
            bottom = (width * 2 ** (depth - 1), *(n // 2**depth for n in self.padded))
            self.encoder, self.decoder = _convolutions(self.shape[0], width, depth, latent, bottom)
        else:
            numel, wide = math.prod(self.shape), 4 * width
            self.padded = ()
            self.encoder = nn.Sequential(nn.Linear(numel, wide, **PLAIN), nn.ReLU(), nn.Linear(wide, 2 * latent, **PLAIN))
            self.decoder = nn.Sequential(nn.Linear(latent, wide, **PLAIN), nn.ReLU(), nn.Linear(wide, numel, **PLAIN))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of q(z | x), [B, latent] each, from samples [B, *shape]."""
        if self.padded:
            below, right = (to - n for to, n in zip(self.padded, self.shape[1:], strict=True))
            x = F.pad(x, (0, right, 0, below))
        else:
            x = x.reshape(len(x), -1)
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """The means of p(x | z), [B, *shape], from codes [B, latent]."""
        x: Tensor = self.decoder(z)
        if self.padded:
            x = x[:, :, : self.shape[1], : self.shape[2]]
        return x.reshape(len(z), *self.shape)


class Discriminator(nn.Sequential):
    """Log-odds [B, 1] that codes [B, latent] are of labelled samples; five linear layers, as in VAAL's code."""

    def __init__(self, latent: int = 32, width: int = 512) -> None:
        sizes = [latent, width, width, width, width]
        layers: list[nn.Module] = []
        for wide, out in pairwise(sizes):
            layers += [nn.Linear(wide, out, **PLAIN), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, 1, **PLAIN))


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """The code `μ + σ ε`; all [B, latent]."""
    return mean + (0.5 * log_variance).exp() * noise


def elbo_loss(x: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor, beta: float = 1.0) -> Tensor:
    """The negative evidence lower bound, `½ ‖x - x̂‖² + β KL(q(z|x) ‖ N(0, 1))`, averaged over the batch; 0-d.

    p(x | z) is a Gaussian of variance 1, whose constant is left out. VAAL's code averages the squares over samples and
    pixels but sums the divergences, which weighs the divergence (samples · pixels / 2) times more.
    """
    squares = 0.5 * (x - decoded).reshape(len(x), -1).square().sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return (squares + beta * divergence).mean()


def adversarial_loss(labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """The autoencoder's loss that all samples look labelled, `-log D(z_L) - log D(z_U)`: means over log-odds [B, 1]; 0-d."""
    return F.softplus(-labelled).mean() + F.softplus(-unlabelled).mean()


def discriminator_loss(labelled: Tensor, unlabelled: Tensor) -> Tensor:
    """The discriminator's loss, `-log D(z_L) - log(1 - D(z_U))`: means over log-odds [B, 1]; 0-d."""
    return F.softplus(-labelled).mean() + F.softplus(unlabelled).mean()


def _convolutions(
    channels: int, width: int, depth: int, latent: int, bottom: tuple[int, ...]
) -> tuple[nn.Sequential, nn.Sequential]:
    widths = [width * 2**i for i in range(depth)]
    down: list[nn.Module] = []
    for wide, out in zip([channels, *widths[:-1]], widths, strict=True):
        down += [nn.Conv2d(wide, out, 4, 2, 1, bias=False, **PLAIN), nn.BatchNorm2d(out, **PLAIN), nn.ReLU()]
    up: list[nn.Module] = [nn.Linear(latent, math.prod(bottom), **PLAIN), nn.Unflatten(1, bottom)]
    for wide, out in zip(widths[:0:-1], widths[-2::-1], strict=True):
        up += [nn.ConvTranspose2d(wide, out, 4, 2, 1, bias=False, **PLAIN), nn.BatchNorm2d(out, **PLAIN), nn.ReLU()]
    up.append(nn.ConvTranspose2d(widths[0], channels, 4, 2, 1, **PLAIN))
    return nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(bottom), 2 * latent, **PLAIN)), nn.Sequential(*up)


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers in the shape of `like`, drawn on the CPU."""
    return torch.randn(like.shape, dtype=torch.float32, generator=generator, device="cpu").to(like)
