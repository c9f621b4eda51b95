"""Recurrent layers in plain operations: `vmap` has no rules for the fused ones.

The input's projection is one linear layer over all steps, the state's one layer used at every step. Of packed sequences,
those of one sample are known: they are the sequence without its padding. Samples of different lengths stay together
(`padded.py`): past its end, a sample's state stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..branches import all_alike, values_of
from .base import register_decomposition
from .padded import Length, Padded, StepSizes

State = tuple[Tensor, ...]
Cell = Callable[
    [Tensor, Tensor, State], State
]  # (projected input, projected state, state) -> state; its first is the output


def _lstm(x: Tensor, h: Tensor, state: State) -> State:
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(x: Tensor, h: Tensor, state: State) -> State:
    xr, xz, xn = x.chunk(3, -1)
    hr, hz, hn = h.chunk(3, -1)
    z = (xz + hz).sigmoid()
    return ((1 - z) * (xn + (xr + hr).sigmoid() * hn).tanh() + z * state[0],)


def _rnn_tanh(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).tanh(),)


def _rnn_relu(x: Tensor, h: Tensor, state: State) -> State:
    return ((x + h).relu(),)


def _run(
    cell: Cell,
    input: Tensor,
    initial: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    length: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Output [T, N, H] (or batch first) and the last state of each layer and direction [layers * directions, N, H].

    With a length, 0-d, of the sequences, states are those at their end, and outputs past it are anything.
    """
    x = input.transpose(0, 1) if batch_first else input
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    last: list[State] = []
    goes_on = None if length is None else (torch.arange(len(x), device=length.device) < length).unbind(0)
    for layer in range(num_layers):
        outputs = []
        for backwards in range(directions):
            i = layer * directions + backwards
            w_ih, w_hh, *rest = params[i * each : (i + 1) * each]
            b_ih, b_hh = rest[:2] if has_biases else (None, None)
            project = rest[-1] if len(rest) % 2 else None  # of an LSTM with proj_size
            projected = F.linear(x, w_ih, b_ih).unbind(0)
            state = tuple(s[i] for s in initial)
            steps = []
            for t in reversed(range(len(projected))) if backwards else range(len(projected)):
                new = cell(projected[t], F.linear(state[0], w_hh, b_hh), state)
                if project is not None:
                    new = (F.linear(new[0], project), *new[1:])
                state = new if goes_on is None else _chosen(goes_on[t], new, state)
                steps.append(state[0])
            outputs.append(torch.stack(steps[::-1] if backwards else steps))
            last.append(state)
        x = torch.cat(outputs, -1)
    return (x.transpose(0, 1) if batch_first else x, *(torch.stack(s) for s in zip(*last, strict=True)))


def _chosen(goes_on: Tensor, new: State, old: State) -> State:
    return tuple(torch.where(goes_on, a, b) for a, b in zip(new, old, strict=True))


def _layer(cell: Cell, states: int) -> Callable[..., Any]:
    """`torch.lstm` and its kin, whose two signatures are for padded and for packed sequences."""

    def padded(
        input: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        if train and dropout > 0:
            return NotImplemented
        initial = hx if states > 1 else (hx,)
        return _run(cell, input, initial, params, has_biases, num_layers, bidirectional, batch_first)

    def packed(
        data: Any,
        batch_sizes: Any,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> Any:
        length = None
        if isinstance(data, Padded):
            if train and dropout > 0:
                data.split()
            data, length = data.steps, data.length
        elif len(data) != len(batch_sizes):  # more than one sample
            return NotImplemented
        if train and dropout > 0:
            return NotImplemented
        initial = hx if states > 1 else (hx,)
        found = _run(cell, data[:, None], initial, params, has_biases, num_layers, bidirectional, False, length)
        out = found[0][:, 0]
        return out if length is None else Padded(out, length), *found[1:]

    def layer(*args: Any) -> Any:
        return packed(*args) if isinstance(args[3], (list, tuple)) else padded(*args)

    return layer


def _one_step(cell: Cell) -> Callable[..., Any]:
    """`torch.lstm_cell` and its kin."""

    def step(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        new = cell(F.linear(input, w_ih, b_ih), F.linear(state[0], w_hh, b_hh), state)
        return new if len(new) > 1 else new[0]

    return step


for _cell, _states, _fused, _fused_cell in (
    (_lstm, 2, torch.lstm, torch.lstm_cell),
    (_gru, 1, torch.gru, torch.gru_cell),
    (_rnn_tanh, 1, torch.rnn_tanh, torch.rnn_tanh_cell),
    (_rnn_relu, 1, torch.rnn_relu, torch.rnn_relu_cell),
):
    register_decomposition(_fused)(_layer(_cell, _states))
    register_decomposition(_fused_cell)(_one_step(_cell))


@register_decomposition(torch._VF._pack_padded_sequence)
def pack_padded_sequence(input: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    """What `torch.nn.utils.rnn.pack_padded_sequence` calls."""
    steps = input.transpose(0, 1) if batch_first else input
    if steps.shape[1] != 1:
        return NotImplemented
    each = values_of(lengths[0])
    longest = int(each.max())
    if not all_alike(each.reshape(-1)):  # padded as they came, so that further batches have the same shape
        return Padded(steps[:, 0], lengths[0]), StepSizes(longest, lengths[0])
    return steps[:longest, 0], torch.ones(longest, dtype=torch.int64, device="cpu")


@register_decomposition(torch._VF._pad_packed_sequence)
def pad_packed_sequence(data: Any, batch_sizes: Any, batch_first: bool, padding_value: float, total_length: int) -> Any:
    """What `torch.nn.utils.rnn.pad_packed_sequence` calls."""
    if isinstance(data, Padded):
        if isinstance(total_length, Length):  # each sample's own
            data.split()
        steps, lengths = data.steps, data.length[None]
        within = torch.arange(len(steps), device=steps.device) < data.length.to(steps.device)
        steps = steps.where(within.reshape(-1, *(1,) * (steps.ndim - 1)), padding_value)[:total_length]
    elif len(data) != len(batch_sizes):
        return NotImplemented
    else:
        steps, lengths = data, torch.tensor([len(data)], dtype=torch.int64, device="cpu")
    padding = steps.new_full((max(total_length - len(steps), 0), *steps.shape[1:]), padding_value)
    padded = torch.cat([steps, padding])[:, None]
    return padded.transpose(0, 1) if batch_first else padded, lengths
