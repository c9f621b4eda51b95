"""Recurrence, embeddings and language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case, tokens


def _text(kind: Callable[..., nn.Module], directions: int = 1, **options: Any) -> Case:
    def forward(self: Any, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(ids))[0][:, -1])

    parts = {"embedding": nn.Embedding(12, 5, padding_idx=0), "rnn": kind(5, 6, batch_first=True, **options)}
    width = directions * options.get("proj_size", 6)
    return Case(Function(forward, **parts, head=nn.Linear(width, CLASSES)), tokens())


@case
def lstm() -> Case:
    return _text(nn.LSTM)


@case
def lstm_deep() -> Case:
    return _text(nn.LSTM, 2, num_layers=2, bidirectional=True, proj_size=3)


@case
def gru() -> Case:
    return _text(nn.GRU)


@case
def gru_deep() -> Case:
    return _text(nn.GRU, 2, num_layers=2, bidirectional=True, bias=False)


@case
def rnn_relu() -> Case:
    return _text(nn.RNN, nonlinearity="relu")


@case
def rnn_time_first() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        out, last = self.rnn(x.transpose(0, 1))
        return self.head(out.mean(0) + last[0])

    return Case(Function(forward, rnn=nn.RNN(5, 6), head=nn.Linear(6, CLASSES)), torch.randn(SAMPLES, 4, 5))


@case
def lstm_packed() -> Case:
    def forward(self: Any, ids: Tensor) -> Tensor:
        lengths = (ids != 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        out, (last, _) = self.rnn(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=ids.shape[1])
        return self.head(torch.cat([last[-1], padded.sum(1)], 1))

    parts = {"embedding": nn.Embedding(12, 5), "rnn": nn.LSTM(5, 6, batch_first=True), "head": nn.Linear(12, CLASSES)}
    return Case(Function(forward, **parts), tokens())


def _cell(kind: Callable[..., nn.Module], **options: Any) -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)

    return Case(Function(forward, cell=kind(5, 6, **options), head=nn.Linear(6, CLASSES)), torch.randn(SAMPLES, 3, 5))


@case
def lstm_cell() -> Case:
    return _cell(nn.LSTMCell)


@case
def gru_cell() -> Case:
    return _cell(nn.GRUCell, bias=False)


@case
def rnn_cell() -> Case:
    return _cell(nn.RNNCell)


@case
def embedding_with_repeats() -> Case:
    def forward(self: Any, ids: Tensor) -> Tensor:
        return self.head(self.mix(self.embedding(ids).tanh()).tanh().mean(1))

    parts = {"embedding": nn.Embedding(5, 6, padding_idx=-5), "mix": nn.Linear(6, 6), "head": nn.Linear(6, CLASSES)}
    return Case(Function(forward, **parts), tokens(7, 5))


@case
def embedding_bag() -> Case:
    return Case(nn.Sequential(nn.EmbeddingBag(12, 5), nn.Linear(5, CLASSES)), tokens())


@case
def embedding_tied_to_head() -> Case:
    def forward(self: Any, ids: Tensor) -> Tensor:
        return self.head(self.mix(self.embedding(ids)).tanh().mean(1))

    parts = {"embedding": nn.Embedding(7, 6), "mix": nn.Linear(6, 6), "head": nn.Linear(6, 7, bias=False)}
    model = Function(forward, **parts)
    model.head.weight = model.embedding.weight
    return Case(model, tokens(5, 7))


@case
def embedding_tied_by_matmul() -> Case:
    def forward(self: Any, ids: Tensor) -> Tensor:
        return self.mix(self.embedding(ids)).tanh().mean(1) @ self.embedding.weight.T

    return Case(Function(forward, embedding=nn.Embedding(7, 6), mix=nn.Linear(6, 6)), tokens(5, 7))


class Output(NamedTuple):
    """What a model of the Hugging Face kind returns, in short."""

    loss: None
    logits: Tensor


@case
def dictionary_of_inputs() -> Case:
    def forward(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None) -> Output:
        h = self.mix(self.embedding(input_ids)).tanh() * attention_mask[..., None]
        return Output(None, self.head(h.sum(1) / attention_mask.sum(1, keepdim=True)))

    parts = {"embedding": nn.Embedding(12, 5, padding_idx=0), "mix": nn.Linear(5, 6), "head": nn.Linear(6, CLASSES)}
    ids = tokens()
    return Case(Function(forward, **parts), {"input_ids": ids, "attention_mask": (ids != 0).long()})


def _bert(attention: str) -> Case:
    import transformers  # noqa: PLC0415 - a slow import

    config = transformers.BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        num_labels=CLASSES,
        attn_implementation=attention,
    )
    ids = tokens()
    mask = (ids != 0).long()  # without padding in one sample, with it in the others: transformers takes two branches
    return Case(transformers.BertForSequenceClassification(config), {"input_ids": ids, "attention_mask": mask})


@case
def bert() -> Case:
    return _bert("sdpa")


@case
def bert_eager() -> Case:
    return _bert("eager")


@case
def branches() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.one(x) if x[0, 0] > 0 else self.two(self.two(x))
        return self.head(h * 2 if h.sum().item() > 0 else h)

    parts = {"one": nn.Linear(5, 5), "two": nn.Linear(5, 5), "head": nn.Linear(5, CLASSES)}
    pool = torch.randn(SAMPLES, 5)
    pool[:, 0] = torch.tensor([-1.0, 1.0, -1.0])
    return Case(Function(forward, **parts), pool)
