"""Models that write into tensors they make in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .family import family


class Writing(nn.Module):
    """A linear layer for each step, a function `write(h [1, T, D])` that gives [1, D], and a head."""

    def __init__(self, write: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.write(self.first(x).tanh()))


def steps() -> Tensor:
    return torch.randn(4, 5, 4)


def into(make: Callable[[Tensor], Tensor], write: Callable[[Tensor, Tensor], Any]) -> tuple[nn.Module, Any]:
    """A model that writes steps into what `make` makes, and sums that, each step weighted otherwise."""

    def run(h: Tensor) -> Tensor:
        out = make(h)
        write(out, h)
        return (out * torch.arange(1.0, out.shape[1] + 1)[:, None].to(h)).sum(1)

    return Writing(run), steps()


@family(slow=True)
def fills_a_buffer_step_by_step() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        for t in range(h.shape[1]):
            out[:, t] = h[:, t] * 2 + (out[:, t - 1] if t else 0)

    return into(lambda h: torch.zeros(1, 5, 6, dtype=h.dtype), write)


@family
def writes_into_empty() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        out[:, ::2] = h[:, ::2]
        out[:, 1::2].copy_(h[:, 1::2] ** 2)

    return into(torch.empty_like, write)


@family
def writes_through_views() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        first, rest = out[:, :2], out[:, 2:]
        flat = out.view(-1)
        first.add_(h[:, :2])
        rest[0][1].copy_(h[0, 0])
        flat[3:9] -= h.flatten()[:6]
        rest.mul_(first.sum())

    return into(lambda h: h.new_ones(1, 5, 6), write)


@family
def adds_in_place() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        out += h
        out *= h.sigmoid()
        out[0, 1:3] += 1.0
        out.clamp_(-0.5, 0.5).addcmul_(h, h)

    return into(lambda h: torch.full((1, 5, 6), 0.5, dtype=h.dtype), write)


@family
def index_put() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        places = h[0, :, 0].argsort()
        out.index_put_((torch.zeros_like(places), places), h[0], accumulate=True)
        out[0, places[:2]] = h[0, :2]

    return into(torch.zeros_like, write)


@family
def scatters() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        places = h.argsort(1)
        out.scatter_(1, places, h).scatter_add_(1, places.flip(1), h * 3)
        out.scatter_reduce_(1, places, h, "sum")

    return into(torch.zeros_like, write)


@family
def index_adds() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        places = h[0, :, 0].argsort()
        out.index_add_(1, places, h, alpha=2.0)
        out.index_copy_(1, places[:1], h[:, :1])
        out.index_fill_(1, places[1:2], 0.3)

    return into(torch.zeros_like, write)


@family
def masked_writes() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        mask = h > 0
        out.masked_scatter_(mask, h.flip(1))
        out.masked_fill_(h > 0.5, 0.25)
        out[mask & (h < 0.2)] = 0.7

    return into(lambda h: torch.zeros(1, 5, 6, dtype=h.dtype), write)


@family
def writes_by_out() -> tuple[nn.Module, Any]:
    def run(h: Tensor) -> Tensor:
        with torch.no_grad():
            scale = torch.empty(1, 5, 6, dtype=h.dtype)
            torch.mul(h.detach(), 2, out=scale)
        return (h * scale).sum(1)

    return Writing(run), steps()


@family
def fills_and_normalises() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        out.fill_(1.0)
        out[..., 0].fill_(2.0)
        torch.nn.init.constant_(out[:, 1:2], 0.5)
        out[0, 2].copy_(h[0].sum(0))
        out.sub_(out.mean())

    return into(lambda h: torch.zeros(1, 5, 6).to(h), write)


@family
def clones_a_buffer_and_writes() -> tuple[nn.Module, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("table", torch.randn(5, 6))

        def forward(self, x: Tensor) -> Tensor:
            table = self.table.clone()
            table[1:] += self.first(x)[0, 1:]
            return self.head(table.tanh().sum(0, keepdim=True))

    return Net(), steps()


@family
def writes_into_a_module_buffer() -> tuple[nn.Module, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("state", torch.zeros(1, 6))

        def forward(self, x: Tensor) -> Tensor:
            for t in range(x.shape[1]):
                self.state.mul_(0.5).add_(self.first(x[:, t]).tanh().detach())
            return self.head(self.first(x[:, -1]).tanh() * self.state)

    return Net(), steps()


@family
def rotates_in_a_matrix() -> tuple[nn.Module, Any]:
    """peft's OFT: a skew-symmetric matrix is filled from a vector of parameters."""

    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.angles = nn.Parameter(torch.randn(15))

        def forward(self, x: Tensor) -> Tensor:
            skew = torch.zeros(6, 6, dtype=x.dtype)
            rows, columns = torch.triu_indices(6, 6, 1)
            skew[rows, columns] = self.angles
            skew = skew - skew.T
            eye = torch.eye(6, dtype=x.dtype)
            return self.head(self.first(x).tanh().mean(1) @ torch.linalg.solve(eye + skew, eye - skew))

    return Rotation(), steps()


@family(slow=True)
def fourier_coefficients() -> tuple[nn.Module, Any]:
    """peft's FourierFT: a sparse spectrum is filled, and its inverse transform is a weight's offset."""
    pytest.importorskip("torch", "2.9")  # before, vmap takes an index's second vector for another dimension

    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.spectrum = nn.Parameter(torch.randn(5))
            self.register_buffer("places", torch.stack([torch.randint(0, 6, (5,)), torch.randint(0, 4, (5,))]))

        def forward(self, x: Tensor) -> Tensor:
            dense = torch.zeros(6, 4, dtype=self.spectrum.dtype)
            dense[self.places[0], self.places[1]] = self.spectrum
            weight = torch.fft.ifft2(dense).real * 3
            return self.head((self.first(x) + x @ weight.T).tanh().mean(1))

    return Fourier(), steps()


@family(slow=True)
def selective_scan() -> tuple[nn.Module, Any]:
    """Mamba's plain path: a state of zeros, and outputs kept in a list and in a buffer."""

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.step, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.decay = nn.Parameter(torch.randn(6, 2))

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            state = torch.zeros(len(x), 6, 2, dtype=x.dtype)
            out = torch.zeros_like(h)
            for t in range(h.shape[1]):
                dt = nn.functional.softplus(self.step(h[:, t]))
                state *= torch.exp(-dt[..., None] * self.decay.exp())
                state += (dt * h[:, t])[..., None]
                out[:, t, :] = state.sum(-1)
            return self.head(out.mean(1))

    return Scan(), steps()


def peft_model(config: str, **options: Any) -> tuple[nn.Module, Any]:
    peft = pytest.importorskip("peft")
    import transformers  # noqa: PLC0415 - a slow import

    small = transformers.BertConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=3
    )
    model = transformers.BertForSequenceClassification(small)
    chosen = getattr(peft, config)(task_type="SEQ_CLS", target_modules=["query", "value"], **options)
    return peft.get_peft_model(model, chosen), {"input_ids": torch.randint(1, 24, (3, 6))}


@family
def peft_oft() -> tuple[nn.Module, Any]:
    return peft_model("OFTConfig", oft_block_size=4)


@family
def peft_fourierft() -> tuple[nn.Module, Any]:
    return peft_model("FourierFTConfig", n_frequency=20)


@family
def writes_through_a_row_chosen_by_the_sample() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        row = out[0, (h[0, 0, 0] > 0).long()]
        row.copy_(h[0, 2])
        out[0, (h[0, 1, 0] > 0).long() + 2].add_(h[0, 1])

    return into(torch.zeros_like, write)


@family
def adds_to_a_row_chosen_by_the_sample() -> tuple[nn.Module, Any]:
    def write(out: Tensor, h: Tensor) -> None:
        chosen = h[0, :, 0].argmax()
        out[0, chosen] += h[0, 0]
        out[0, chosen, 1:3] *= 2

    return into(torch.zeros_like, write)


@family
def reads_a_row_after_a_write() -> tuple[nn.Module, Any]:
    def run(h: Tensor) -> Tensor:
        out = h[0].clone()
        row = out[(h[0, 0, 0] > 0).long()]
        out.mul_(2)
        return out.sum(0, keepdim=True) + row

    return Writing(run), steps()


@family(slow=True)
def counts_by_integers() -> tuple[nn.Module, Any]:
    def run(h: Tensor) -> Tensor:
        counts = torch.zeros(3, 4, dtype=torch.long)
        kind = (h[0, 0, 0] > 0).long()
        counts[kind] += 1
        counts[kind, (h[0, :2, 1] > 0).long()] += 2
        row = counts[kind]
        row[0] = 5
        return h.sum(1) * counts[1].sum() / 9 + counts[0].sum() / 9

    return Writing(run), steps()
