"""Activation checkpointing: the checkpointed function is called itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from .family import family

SMALL = {
    "vocab_size": 24,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "num_labels": 3,
    "pad_token_id": 0,
}


def token_ids(length: int = 7) -> dict[str, Tensor]:
    """Three samples of different lengths, padded at the end."""
    ids = torch.randint(2, 24, (3, length))
    mask = torch.ones_like(ids)
    for row, kept in enumerate((length, length - 2, length - 3)):
        ids[row, kept:], mask[row, kept:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def checkpointing(model: Any, **how: Any) -> Any:
    """A Hugging Face model as its Trainer prepares it with `gradient_checkpointing=True`."""
    model.gradient_checkpointing_enable(**how)
    model.enable_input_require_grads()
    return model


@family(slow=True)
def bert_with_gradient_checkpointing() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415 - a slow import

    return checkpointing(transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))), token_ids()


@family
def bert_frozen_but_for_its_last_layer() -> tuple[nn.Module, Any]:
    model, pool = bert_with_gradient_checkpointing()
    for name, p in model.named_parameters():
        p.requires_grad_("layer.1" in name or "classifier" in name)
    return model, pool


@family(slow=True)
def roberta_with_reentrant_checkpointing() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    model = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL))
    return checkpointing(model, gradient_checkpointing_kwargs={"use_reentrant": True}), token_ids()


@family
def distilbert_with_gradient_checkpointing() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    config = transformers.DistilBertConfig(vocab_size=24, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3)
    return checkpointing(transformers.DistilBertForSequenceClassification(config)), token_ids()


@family(slow=True)
def gpt2_with_gradient_checkpointing() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    sizes = {"vocab_size": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20}
    config = transformers.GPT2Config(**sizes, num_labels=3, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    return checkpointing(transformers.GPT2ForSequenceClassification(config)), {"input_ids": torch.randint(1, 24, (3, 7))}


@family(slow=True)
def densenet_memory_efficient() -> tuple[nn.Module, Any]:
    from torchvision.models import DenseNet  # noqa: PLC0415

    model = DenseNet(4, (2, 2), 8, bn_size=2, num_classes=3, memory_efficient=True)
    return model, torch.randn(3, 3, 32, 32)


class Blocks(nn.Module):
    """A network whose blocks are checkpointed, also in eval mode; `run(blocks, x)` runs them."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh()) for _ in range(3))
        )
        self.head = nn.Linear(6, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self.blocks, self.stem(x)).mean((2, 3)))


def pictures() -> Tensor:
    return torch.randn(3, 2, 6, 6)


@family
def checkpoint_reentrant() -> tuple[nn.Module, Any]:
    def run(blocks: Any, x: Tensor) -> Tensor:
        for block in blocks:
            x = x + checkpoint(block, x, use_reentrant=True)
        return x

    return Blocks(run), pictures()


@family
def checkpoint_not_reentrant() -> tuple[nn.Module, Any]:
    def run(blocks: Any, x: Tensor) -> Tensor:
        for block in blocks:
            x = checkpoint(lambda h, scale, block=block: block(h) * scale, x, scale=1.5, use_reentrant=False)
        return x

    return Blocks(run), pictures()


@family
def checkpoint_in_a_sequence() -> tuple[nn.Module, Any]:
    return Blocks(lambda blocks, x: checkpoint_sequential(blocks, 2, x, use_reentrant=True)), pictures()


@family
def checkpoint_selective() -> tuple[nn.Module, Any]:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts  # noqa: PLC0415

    def contexts() -> Any:
        return create_selective_checkpoint_contexts([torch.ops.aten.convolution.default])

    return Blocks(lambda blocks, x: checkpoint(blocks, x, use_reentrant=False, context_fn=contexts)), pictures()


@family(slow=True)
def checkpoint_wrapper_of_distributed() -> tuple[nn.Module, Any]:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper  # noqa: PLC0415

    model = Blocks(lambda blocks, x: blocks(x))
    model.blocks = nn.Sequential(*map(checkpoint_wrapper, model.blocks))
    return model, pictures()


@family
def timm_resnet_with_grad_checkpointing() -> tuple[nn.Module, Any]:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", num_classes=3)
    model.set_grad_checkpointing()
    return model, torch.randn(2, 3, 32, 32)


@family
def timm_vit_with_grad_checkpointing() -> tuple[nn.Module, Any]:
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=3, img_size=32)
    model.set_grad_checkpointing()
    return model, torch.randn(2, 3, 32, 32)
