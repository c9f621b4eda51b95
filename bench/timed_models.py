"""The models that are timed, each with a pool."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from saal_fast.experiments import networks


def resnet18(n: int, width: int = 64) -> tuple[nn.Module, Tensor]:
    """ResNet-18 with the stem for 32×32 images (3×3, stride 1, no pooling), 10 classes; `width` channels at first."""
    return networks.resnet18(10, width=width).eval(), torch.randn(n, 3, 32, 32)


def vit(n: int) -> tuple[nn.Module, Tensor]:
    """A small vision transformer: 64×64 images in 65 tokens of 192, 6 layers (ViT-Tiny's width)."""
    model = torchvision.models.VisionTransformer(
        image_size=64, patch_size=8, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10
    )
    nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision starts it at zero, where nothing has a gradient
    return model.eval(), torch.randn(n, 3, 64, 64)


def mlp(n: int) -> tuple[nn.Module, Tensor]:
    """784-1024-1024-10."""
    layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]
    return nn.Sequential(*layers).eval(), torch.randn(n, 784)


def vit_b_16(n: int) -> tuple[nn.Module, Tensor]:
    """ViT-B/16 on 224×224 images, 1,000 classes: 197 tokens of 768, 12 layers."""
    model = torchvision.models.vit_b_16(num_classes=1000)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model.eval(), torch.randn(n, 3, 224, 224)


def bert(n: int, width: int = 768, layers: int = 6, length: int = 128) -> tuple[nn.Module, dict[str, Tensor]]:
    """BERT for four classes on token ids, without padding."""
    import transformers  # noqa: PLC0415 - a slow import

    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 4 * width}
    config = transformers.BertConfig(**sizes, num_attention_heads=width // 64, num_labels=4)
    ids = torch.randint(1, 30_000, (n, length))
    pool = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return transformers.BertForSequenceClassification(config).eval(), pool


def first(pool: Tensor | dict[str, Tensor], n: int) -> Tensor | dict[str, Tensor]:
    """The first samples of a pool."""
    return {name: t[:n] for name, t in pool.items()} if isinstance(pool, dict) else pool[:n]


def batches(pool: Tensor | dict[str, Tensor], size: int) -> list[Tensor] | list[dict[str, Tensor]]:
    """A pool in batches."""
    if isinstance(pool, dict):
        return [dict(zip(pool, parts, strict=True)) for parts in zip(*(t.split(size) for t in pool.values()), strict=True)]
    return list(pool.split(size))
