"""Models that take rows by masks: samples with as many rows are scored together; hand-written mixtures of experts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .family import family


class Tokens(nn.Module):
    """A linear layer for each token, a function `mix(tokens [1, T, D], mask [1, T])` that gives [1, D], and a head."""

    def __init__(self, mix: Any) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.first(x).tanh(), x[..., 0] > 0))


def sequences() -> Tensor:
    x = torch.randn(5, 7, 4)
    x[:, 0, 0] = 1.0  # no mask is empty
    return x


@family(slow=True)
def mean_of_masked_rows() -> tuple[nn.Module, Any]:
    return Tokens(lambda h, mask: h[mask].mean(0, keepdim=True)), sequences()


@family(slow=True)
def last_of_masked_rows() -> tuple[nn.Module, Any]:
    return Tokens(lambda h, mask: h[mask, :].view(len(h), -1, h.shape[-1])[:, -1]), sequences()


@family(slow=True)
def masked_columns() -> tuple[nn.Module, Any]:
    return Tokens(lambda h, mask: h[:, mask[0]].amax(1)), sequences()


@family(slow=True)
def masked_numbers() -> tuple[nn.Module, Any]:
    return Tokens(lambda h, mask: h.masked_select(mask[..., None]).view(1, -1, 6).sum(1)), sequences()


@family(slow=True)
def rows_where() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        sample, place = torch.where(mask)
        return h[sample, place].sum(0, keepdim=True)

    return Tokens(mix), sequences()


@family(slow=True)
def rows_by_nonzero() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        places = mask[0].nonzero().squeeze(1)
        return h.index_select(1, places).sum(1) + h[0, torch.argwhere(mask)[-1, 1]]

    return Tokens(mix), sequences()


@family
def zeroed_by_a_mask() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        h = h.clone()
        h[~mask] = 0
        h[mask] *= 2
        return h.sum(1)

    return Tokens(mix), sequences()


@family
def rows_written_by_a_mask() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        out[mask] = h[mask].cumsum(0)
        out[~mask] = h[0, 0]
        return (out * torch.arange(1.0, 8.0)[:, None].to(h)).sum(1)

    return Tokens(mix), sequences()


@family(slow=True)
def unique_values() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        values, inverse, counts = mask[0].long().unique(return_inverse=True, return_counts=True)
        runs, lengths = torch.unique_consecutive(mask, return_counts=True)
        return (h[0] * inverse[:, None]).sum(0, keepdim=True) * counts.max() + len(values) + lengths.amax() + len(runs)

    return Tokens(mix), sequences()


class Experts(nn.Module):
    """A mixture of experts as people write it: each expert takes the tokens that the router sends to it."""

    def __init__(self, experts: int = 3, k: int = 2) -> None:
        super().__init__()
        self.router = nn.Linear(6, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 6)) for _ in range(experts))
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(self.k, -1)
        out = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            token, place = torch.where(chosen == i)
            if token.numel() == 0:
                continue
            out.index_add_(0, token, expert(flat[token]) * weights[token, place, None])
        return out.view_as(x)


@family(slow=True)
def mixture_of_experts() -> tuple[nn.Module, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.experts, self.head = nn.Linear(4, 6), Experts(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.experts(self.first(x).tanh()).mean(1))

    return Net(), torch.randn(5, 4, 4)


@family
def mixture_of_experts_by_a_mask() -> tuple[nn.Module, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(4, 3)
            self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.gate(x).softmax(-1)
            best = scores.argmax(-1)
            out = torch.zeros(len(x), 3, dtype=x.dtype)
            for i, expert in enumerate(self.experts):
                mask = best == i
                if mask.any():
                    out[mask] = expert(x[mask]) * scores[mask, i, None]
            return out

    return Net(), torch.randn(6, 4)


@family
def mixtral() -> tuple[nn.Module, Any]:
    import transformers  # noqa: PLC0415 - a slow import

    config = transformers.MixtralConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=3,
        pad_token_id=0,
        num_labels=3,
    )
    config._experts_implementation = "eager"
    return transformers.MixtralForSequenceClassification(config), {"input_ids": torch.randint(1, 24, (3, 5))}


@family(slow=True)
def focal_patches() -> tuple[nn.Module, Any]:
    def mix(h: Tensor, mask: Tensor) -> Tensor:
        order = torch.where(mask[0])[0]
        padded = F.pad(h[:, order], (0, 0, 0, 7 - len(order)))
        return padded.flatten(1).view(1, 7, 6).sum(1)

    return Tokens(mix), sequences()
