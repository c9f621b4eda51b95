"""Attention and transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case


@case
def multihead_attention() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        attended, weights = self.attention(x, x, x)
        return self.head(attended.mean(1) + weights.square().mean())

    return Case(
        Function(forward, attention=nn.MultiheadAttention(8, 2, batch_first=True), head=nn.Linear(8, CLASSES)),
        torch.randn(SAMPLES, 5, 8),
    )


@case
def multihead_attention_across() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        context = x[..., :6].cos()
        return self.head(self.attention(x[:, :2], context, context, need_weights=False)[0].mean(1))

    attention = nn.MultiheadAttention(8, 2, batch_first=True, kdim=6, vdim=6, add_bias_kv=True)
    return Case(Function(forward, attention=attention, head=nn.Linear(8, CLASSES)), torch.randn(SAMPLES, 5, 8))


@case
def multihead_attention_packed() -> Case:
    """Queries of their own, then keys of their own: the packed weight is split, first in two parts, then in three."""

    def forward(self: Any, x: Tensor) -> Tensor:
        seen = self.first(x[:, :2], x, x, need_weights=False)[0]
        return self.head((seen + self.second(seen + 0.5, seen - 0.5, seen)[0]).mean(1))

    parts = {name: nn.MultiheadAttention(8, 2, batch_first=True) for name in ("first", "second")}
    return Case(Function(forward, **parts, head=nn.Linear(8, CLASSES)), torch.randn(SAMPLES, 5, 8))


@case
def attention_causal_with_shared_keys() -> Case:
    """As a language model has it: each key is that of two queries' heads, each query sees what came before it."""

    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.q(x).unflatten(2, (4, 2)), self.k(x).unflatten(2, (2, 2)), self.v(x).unflatten(2, (2, 2))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        near = F.scaled_dot_product_attention(q[:, :2], k, v, is_causal=True)
        all_heads = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.4, enable_gqa=True)
        return self.head(torch.cat([near, all_heads], 1).transpose(1, 2).flatten(2)[:, -1])

    parts = {"q": nn.Linear(8, 8), "k": nn.Linear(8, 4), "v": nn.Linear(8, 4), "head": nn.Linear(12, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5, 8))


@case
def attention_with_learned_positions() -> Case:
    """The mask that is added has parameters of its own."""

    def forward(self: Any, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        out = F.scaled_dot_product_attention(heads, heads.sin(), heads, attn_mask=self.near[None])
        return self.head(out.transpose(1, 2).flatten(2).mean(1))

    near = nn.Parameter(torch.randn(2, 5, 5))
    return Case(Function(forward, near=near, head=nn.Linear(8, CLASSES)), torch.randn(SAMPLES, 5, 8))


@case
def attention_with_masks() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = torch.ones(5, 5, dtype=torch.bool).tril(1)
        return self.head((causal + F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3)).mean(1))

    return Case(Function(forward, qkv=nn.Linear(8, 24), head=nn.Linear(8, CLASSES)), torch.randn(SAMPLES, 5, 8))


def _encoder(**options: Any) -> Case:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **options)
    nested = not options.get("norm_first", False)

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))

    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
    return Case(Function(forward, encoder=encoder, head=nn.Linear(8, CLASSES)), torch.randn(SAMPLES, 5, 8))


@case
def transformer_encoder() -> Case:
    return _encoder()


@case
def transformer_encoder_norm_first() -> Case:
    return _encoder(norm_first=True, activation="gelu")
