"""Sequence classifiers of transformers that ask for values, take rows by masks, or write into buffers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .family import family

SMALL = {"vocab_size": 24, "num_labels": 3, "pad_token_id": 0}


def padded(length: int = 8, samples: int = 4) -> dict[str, Tensor]:
    """Token ids of different lengths, each ended by the end token 2."""
    ids = torch.randint(3, 24, (samples, length))
    mask = torch.ones_like(ids)
    for row in range(samples):
        end = length - row
        ids[row, end - 1], ids[row, end:], mask[row, end:] = 2, 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def bart_like(name: str) -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415 - a slow import

    config = getattr(transformers, f"{name}Config")(
        **SMALL,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=20,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    return getattr(transformers, f"{name}ForSequenceClassification")(config), padded()


@family(slow=True)
def bart() -> tuple[nn.Module, Any]:
    return bart_like("Bart")


@family(slow=True)
def mbart() -> tuple[nn.Module, Any]:
    return bart_like("MBart")


@family(slow=True)
def t5() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    config = transformers.T5Config(
        **SMALL, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, eos_token_id=2, decoder_start_token_id=0
    )
    return transformers.T5ForSequenceClassification(config), padded()


@family
def gpt2_padded() -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers", "5.0")  # before, its mask overflows in float64

    config = transformers.GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=2, n_positions=20)
    return transformers.GPT2ForSequenceClassification(config), padded()


@family(slow=True)
def gpt2_padded_without_a_mask() -> tuple[nn.Module, Any]:
    model, pool = gpt2_padded()
    return model, {"input_ids": pool["input_ids"]}


@family(slow=True)
def llama_padded() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    config = transformers.LlamaConfig(
        **SMALL, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    return transformers.LlamaForSequenceClassification(config), padded()


@family(slow=True)
def longformer() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    config = transformers.LongformerConfig(
        **SMALL,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        attention_window=4,
        max_position_embeddings=20,
    )
    return transformers.LongformerForSequenceClassification(config), padded()


@family(slow=True)
def bigbird_sparse() -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers", "5.0")  # before, it draws in eval mode

    config = transformers.BigBirdConfig(
        **SMALL,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        block_size=2,
        num_random_blocks=1,
        attention_type="block_sparse",
    )
    return transformers.BigBirdForSequenceClassification(config), padded(32)


@family(slow=True)
def mamba() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.MambaConfig(
                vocab_size=24, hidden_size=16, state_size=4, num_hidden_layers=2, time_step_rank=2, pad_token_id=0
            )
            self.mamba, self.head = transformers.MambaModel(config), nn.Linear(16, 3)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.head(self.mamba(input_ids).last_hidden_state.mean(1))

    return Classifier(), padded()["input_ids"]


@family(slow=True)
def mamba2() -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers", "5.0")  # before, it computes in float32

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"hidden_size": 16, "state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
            config = transformers.Mamba2Config(vocab_size=24, num_hidden_layers=1, pad_token_id=0, **sizes)
            self.mamba, self.head = transformers.Mamba2Model(config), nn.Linear(16, 3)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.head(self.mamba(input_ids).last_hidden_state.mean(1))

    return Classifier(), padded()["input_ids"]


@family(slow=True)
def wav2vec2_with_a_mask() -> tuple[nn.Module, Any]:
    transformers = pytest.importorskip("transformers", "5.0")  # before, it draws in eval mode

    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_stride=(4, 2),
        conv_kernel=(8, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_labels=3,
        classifier_proj_size=8,
    )
    sound, mask = torch.randn(3, 200), torch.ones(3, 200, dtype=torch.long)
    mask[1, 150:] = mask[2, 100:] = 0
    return transformers.Wav2Vec2ForSequenceClassification(config), {"input_values": sound * mask, "attention_mask": mask}


@family(engine="reference", slow=True)  # it draws the order of its patches, in eval mode too
def vilt() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415

    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = transformers.ViltConfig(
                vocab_size=24,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=24,
                image_size=16,
                patch_size=4,
                num_labels=3,
                max_position_embeddings=20,
            )
            self.vilt = transformers.ViltForQuestionAnswering(config)

        def forward(self, **inputs: Tensor) -> Tensor:
            return self.vilt(**inputs).logits

    text = padded()
    return Answers(), text | {"pixel_values": torch.randn(4, 3, 16, 16), "pixel_mask": torch.ones(4, 16, 16).long()}


@family(slow=True)
def transformer_encoder_with_padding() -> tuple[nn.Module, Any]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(24, 16), nn.Linear(16, 3)
            layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)

        def forward(self, ids: Tensor) -> Tensor:
            padding = ids == 0
            h = self.encoder(self.embedding(ids), src_key_padding_mask=padding)
            return self.head(h.masked_fill(padding[..., None], 0).sum(1))

    return Encoder(), padded()["input_ids"]


@family
def embedding_bag_sparse() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.EmbeddingBag(24, 6, sparse=True, padding_idx=0), nn.Linear(6, 3)), padded()["input_ids"]


@family
def embedding_bag_max() -> tuple[nn.Module, Any]:
    return nn.Sequential(nn.EmbeddingBag(24, 6, mode="max", padding_idx=0), nn.Linear(6, 3)), padded()["input_ids"]


@family
def embedding_bag_weighted() -> tuple[nn.Module, Any]:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(24, 6, mode="sum", sparse=True), nn.Linear(6, 3)

        def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
            return self.head(self.bag(ids, per_sample_weights=weights))

    ids = padded()["input_ids"]
    return Bag(), {"ids": ids, "weights": torch.rand(ids.shape)}


@family
def embedding_sparse() -> tuple[nn.Module, Any]:
    return (
        nn.Sequential(nn.Embedding(24, 6, sparse=True), nn.Flatten(), nn.Linear(48, 3)),
        padded()["input_ids"],
    )
