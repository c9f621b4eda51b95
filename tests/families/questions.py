"""Models that ask for values other than by `.item()`: samples that answer alike are scored together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .family import family


class Asking(nn.Module):
    """Two linear layers; between them a function that asks, and gives a number to multiply with."""

    def __init__(self, ask: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return self.head(h * self.ask(x, h))


def rows() -> Tensor:
    """Samples 0 and 2 begin with a 1, samples 1 and 3 with a 0."""
    x = torch.randn(4, 4)
    x[:, 0] = torch.tensor([1.0, 0, 1, 0])
    return x


@family
def asks_whether_it_contains() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if 0 in x else 0.5), rows()


@family
def asks_whether_a_tensor_is_contained() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if x[0, 0] in torch.tensor([1.0, 3.0]) else 0.5), rows()


@family
def asks_equal() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if torch.equal(x[:, 0], torch.ones_like(x[:, 0])) else 0.5), rows()


@family
def asks_whether_all_are_equal() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if bool((x[:, :1] == 1).all()) else 0.5), rows()


@family
def asks_allclose() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if torch.allclose(x[:, 0], torch.ones(1).to(x)) else 0.5), rows()


@family(slow=True)
def asks_is_nonzero() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if torch.is_nonzero(x[0, 0]) else 0.5), rows()


@family(slow=True)
def asks_a_list() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: sum(x[:, :1].tolist()[0]) + 0.5), rows()


@family(slow=True)
def asks_an_array() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: float(x[:, 0].detach().cpu().numpy().sum()) + 0.5), rows()


@family(slow=True)
def asks_numpy_itself() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: float(np.asarray(x[0, :1].detach())[0]) + 0.5), rows()


@family(slow=True)
def writes_a_text_down() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: float(f"{x[0, 0]:.1f}") + 0.5), rows()


@family
def looks_for_nan_in_a_text() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: 2.0 if "1" in str(x[0, 0].int()) else 0.5), rows()


@family(slow=True)
def counts_nonzero() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: float(len(x.nonzero()))), rows()


@family(slow=True)
def makes_a_tensor_of_values() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: torch.tensor([x[0, 0], 2.0]).sum().to(h)), rows()


@family
def makes_as_many_as_a_value() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: torch.arange(x[0, 0] + 2).sum().to(h) + 1), rows()


@family(slow=True)
def repeats_as_often_as_a_value() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: h.repeat_interleave(x[0, :1].long() + 1, 0).sum(0)), rows()


@family(slow=True)
def counts_values() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: torch.bincount(x[0, :2].abs().long()).to(h).sum()), rows()


@family
def slices_by_a_value() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: h[:, : x[0, 0].long() + 2].sum()), rows()


@family
def one_hot() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: F.one_hot(x[:, 0].long(), 6) + 0.5), rows()


@family(slow=True)
def one_hot_of_unsaid_classes() -> tuple[nn.Module, Any]:
    return Asking(lambda x, h: (F.one_hot(x[:, 0].long()) + 0.5).sum()), rows()


class Packed(nn.Module):
    """A recurrent layer over packed sequences; `read` makes features of its output and last state."""

    def __init__(self, kind: Any, read: Callable[..., Tensor], features: int, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 5)
        self.rnn = kind(5, 6, batch_first=True, **options)
        self.head = nn.Linear(features, 3)
        self.read = read

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids != 0).sum(1).cpu()
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.read(*self.rnn(packed)))


def sentences() -> Tensor:
    ids = torch.randint(1, 12, (6, 7))
    for row, length in enumerate((3, 6, 5, 1, 6, 3)):
        ids[row, length:] = 0
    return ids


def last_of(out: Any, state: Any) -> Tensor:
    state = state[0] if isinstance(state, tuple) else state
    return torch.cat(list(state), -1)


@family(slow=True)
def packed_lstm() -> tuple[nn.Module, Any]:
    return Packed(nn.LSTM, last_of, 24, num_layers=2, bidirectional=True), sentences()


@family(slow=True)
def packed_gru() -> tuple[nn.Module, Any]:
    return Packed(nn.GRU, last_of, 12, bidirectional=True), sentences()


@family(slow=True)
def packed_rnn_padded_again() -> tuple[nn.Module, Any]:
    def read(out: Any, state: Any) -> Tensor:
        return pad_packed_sequence(out, batch_first=True, total_length=7)[0].sum(1)

    return Packed(nn.RNN, read, 6), sentences()


@family(slow=True)
def packed_lstm_padded_to_its_own_length() -> tuple[nn.Module, Any]:
    def read(out: Any, state: Any) -> Tensor:
        padded, lengths = pad_packed_sequence(out, batch_first=True)
        return padded.mean(1) + padded[torch.arange(1), lengths - 1]

    return Packed(nn.LSTM, read, 6), sentences()


@family(slow=True)
def packed_data_touched() -> tuple[nn.Module, Any]:
    return Packed(nn.LSTM, lambda out, state: out.data.mean(0, keepdim=True), 6), sentences()


@family
def logs_what_it_sees() -> tuple[nn.Module, Any]:
    def ask(x: Tensor, h: Tensor) -> float:
        logging.getLogger("families").debug("mean %s", x.mean())
        return 1.5

    return Asking(ask), rows()


@family(slow=True)
def dynamic_early_exit() -> tuple[nn.Module, Any]:
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
            self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for block, head in zip(self.blocks, self.heads, strict=True):
                x = block(x).tanh()
                z = head(x)
                if z.softmax(-1).max() > 0.5:
                    break
            return z

    return Exits(), torch.randn(8, 4) * 2
