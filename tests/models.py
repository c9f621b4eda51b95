"""Small models to score, a function each: what users bring, and what has broken engines before.

`build(name)` gives a `Case`; `NAMES` lists all. Every weight, bias and statistic is random, so that each of them matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 4
SAMPLES = 3


class Case(NamedTuple):
    """A model, a pool for it, and which parameters to perturb (None: all trainable ones)."""

    model: nn.Module
    pool: Any
    params: Callable[[str], bool] | None = None


_CASES: dict[str, Callable[[], Case]] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    _CASES[function.__name__] = function
    return function


def build(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """The case of this name, in eval mode, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, pool, params = _CASES[name]()
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
        normed = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
        for module in normed:
            module.momentum = 1.0
        if normed:
            model.train()(pool)  # takes the pool's own statistics
    cast = {k: _cast(v, dtype) for k, v in pool.items()} if isinstance(pool, dict) else _cast(pool, dtype)
    return Case(model.to(dtype).eval(), cast, params)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def tokens(length: int = 6, vocabulary: int = 12) -> Tensor:
    """Token ids with paddings of 0 of different lengths at the end."""
    ids = torch.randint(1, vocabulary, (SAMPLES, length))
    for i in range(1, SAMPLES):
        ids[i, length - i :] = 0
    return ids


class Function(nn.Module):
    """Modules under their names, and a function `forward(self, *inputs)` of them."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(self, *args, **kwargs)


def images(channels: int = 3, *size: int) -> Tensor:
    return torch.randn(SAMPLES, channels, *(size or (8, 8)))


# --- linear layers --------------------------------------------------------------------------------


@case
def mlp() -> Case:
    return Case(
        nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, CLASSES)),
        torch.randn(SAMPLES, 5),
    )


@case
def linear_of_several_windows() -> Case:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.Flatten(), nn.Linear(36, CLASSES))
    return Case(model, torch.randn(SAMPLES, 2, 3, 5))


@case
def linear_used_twice() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def linear_used_on_one_and_on_many() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(x).tanh().sum(1)))

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 4, 5))


@case
def weight_shared_bias_not() -> Case:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    return Case(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def bias_shared_with_frozen_weight() -> Case:
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.bias = first.bias
    second.weight.requires_grad_(False)
    return Case(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def called_by_keyword() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.linear(weight=self.layer.weight, input=x, bias=self.layer.bias).tanh()
        h = F.conv1d(h[:, None], weight=self.conv.weight, padding=1, bias=None).mean(1)
        return F.linear(h, bias=self.head.bias, weight=self.head.weight)

    parts = {"layer": nn.Linear(5, 6), "conv": nn.Conv1d(1, 3, 3, bias=False), "head": nn.Linear(6, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))


@case
def parameter_as_input() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.queries), F.linear(self.queries, self.head.weight).T, self.head.bias)

    parts = {"queries": nn.Parameter(torch.randn(5, 5)), "head": nn.Linear(5, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))


@case
def weight_used_outside_its_layer() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(x).tanh() @ self.layer.weight + self.head.weight.sum(0) + self.layer.bias.cos())

    return Case(Function(forward, layer=nn.Linear(5, 5), head=nn.Linear(5, CLASSES)), torch.randn(SAMPLES, 5))


@case
def bilinear() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(x, x.cos()).tanh())

    return Case(Function(forward, layer=nn.Bilinear(4, 4, 3), head=nn.Linear(3, CLASSES)), torch.randn(SAMPLES, 4))


# --- convolutions ---------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {"padding": 1}),
    "stride": (1, {"stride": 2, "padding": 2}),
    "dilated": (1, {"dilation": 2, "padding": 1}),
    "same": (1, {"kernel_size": 4, "padding": "same"}),
    "circular": (1, {"padding": 1, "padding_mode": "circular"}),
    "groups": (1, {"groups": 2, "bias": False}),
    "plain_": (2, {"padding": 1}),
    "stride_": (2, {"stride": (2, 1), "padding": (1, 0)}),
    "pointwise": (2, {"kernel_size": 1}),
    "pointwise_stride": (2, {"kernel_size": 1, "stride": 2, "bias": False}),
    "same_": (2, {"kernel_size": (2, 3), "padding": "same", "dilation": (1, 2)}),
    "valid": (2, {"padding": "valid", "bias": False}),
    "reflect": (2, {"padding": (1, 2), "padding_mode": "reflect"}),
    "circular_": (2, {"padding": 1, "padding_mode": "circular", "stride": 2}),
    "replicate_same": (2, {"kernel_size": 4, "padding": "same", "padding_mode": "replicate"}),
    "groups_": (2, {"groups": 2, "stride": 2}),
    "depthwise": (2, {"groups": 4, "padding": 1}),
    "depthwise_multiplied": (2, {"groups": 4, "out_channels": 8, "kernel_size": 5, "padding": 2, "bias": False}),
    "plain__": (3, {"padding": 1}),
    "stride__": (3, {"stride": (1, 2, 1), "padding": (0, 1, 1), "bias": False}),
    "groups__": (3, {"groups": 2, "dilation": (1, 1, 2), "padding": "same"}),
    "transposed": (2, {"stride": 2}),
}


def _convolution(name: str) -> Callable[[], Case]:
    dims, options = CONVOLUTIONS[name]

    def convolution() -> Case:
        settings = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | options
        kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
        layer = nn.ConvTranspose2d(**settings) if name == "transposed" else kinds[dims](**settings)
        first, head = kinds[dims](2, 4, 1), nn.Linear(settings["out_channels"], CLASSES)
        pool = images(2, *(9, 7, 5)[:dims] if dims > 1 else (9,))
        return Case(nn.Sequential(first, nn.Tanh(), layer, nn.Tanh(), nn.Flatten(2), Mean(), head), pool)

    return convolution


class Mean(nn.Module):
    """Mean over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(-1)


for _name, (_dims, _) in CONVOLUTIONS.items():
    _CASES[f"conv{_dims}d_{_name.rstrip('_')}"] = _convolution(_name)


@case
def conv_at_two_sizes_and_strides() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        w, b = self.conv.weight, self.conv.bias
        h = F.conv2d(x, w, b, padding=1).tanh()
        h = F.conv2d(h, w, b, stride=2).tanh()
        return self.head(F.conv2d(h, w, None, padding=1).tanh().mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(3, 3, 3), head=nn.Linear(3, CLASSES)), images(3))


@case
def conv_called_twice() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).relu()).tanh().mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(4, 4, 3, padding=1, groups=2), head=nn.Linear(4, CLASSES)), images(4))


@case
def conv_of_several_windows() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        n, windows = x.shape[:2]
        h = self.conv(x.flatten(0, 1)).tanh().mean((2, 3))
        return self.head(h.view(n, windows, -1).mean(1))

    parts = {"conv": nn.Conv2d(2, 4, 3, padding=1, groups=2), "head": nn.Linear(4, CLASSES)}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 3, 2, 6, 5))


@case
def conv_unbatched() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = torch.stack([self.conv(one).tanh() for one in x.unbind(0)])
        return self.head(h.mean((2, 3)))

    return Case(Function(forward, conv=nn.Conv2d(2, 4, 3), head=nn.Linear(4, CLASSES)), images(2))


# --- networks -------------------------------------------------------------------------------------


@case
def resnet() -> Case:
    """ResNet-18's blocks with a 3×3 stem, an eighth as wide: batch norm, in-place ReLU, residual `+=`."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # noqa: PLC0415 - only where it is used

    blocks: list[nn.Module] = []
    width = 8
    for stage in range(4):
        for block in range(2):
            stride, inputs, width = (2 if stage and not block else 1), width, 8 * 2**stage
            down = nn.Sequential(conv1x1(inputs, width, stride), nn.BatchNorm2d(width)) if inputs != width else None
            blocks.append(BasicBlock(inputs, width, stride, down))
    stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return Case(
        nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)), images(3, 16, 16)
    )


@case
def vit() -> Case:
    from torchvision.models import VisionTransformer  # noqa: PLC0415

    model = VisionTransformer(
        image_size=12, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=CLASSES
    )
    return Case(model, images(3, 12, 12))


@case
def convnext() -> Case:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt  # noqa: PLC0415

    model = ConvNeXt([CNBlockConfig(6, 8, 1), CNBlockConfig(8, None, 2)], layer_scale=0.5, num_classes=CLASSES)
    return Case(model, images(3, 16, 16))


@case
def in_place() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.first(x), inplace=True)
        residual = self.second(h)
        residual += h
        residual.relu_()
        out = self.third(residual)
        out.mul_(2).add_(residual)
        return self.head(F.relu(out, inplace=True).mean((2, 3)))

    parts = {name: nn.Conv2d(3, 3, 3, padding=1) for name in ("first", "second", "third")}
    return Case(Function(forward, **parts, head=nn.Linear(3, CLASSES)), images(3, 5, 5))


def _normed(norm: nn.Module, *size: int) -> Case:
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[len(size)]
    layers = conv(2, 4, 3), norm, nn.ReLU(inplace=True), conv(4, 4, 1), nn.Flatten(2), Mean(), nn.Linear(4, CLASSES)
    return Case(nn.Sequential(*layers), images(2, *size))


@case
def batch_norm_2d() -> Case:
    return _normed(nn.BatchNorm2d(4), 6, 5)


@case
def batch_norm_1d() -> Case:
    return _normed(nn.BatchNorm1d(4), 8)


@case
def batch_norm_without_weights() -> Case:
    return _normed(nn.BatchNorm2d(4, affine=False), 6, 5)


@case
def batch_norm_without_statistics() -> Case:
    return _normed(nn.BatchNorm2d(4, track_running_stats=False), 6, 5)


@case
def batch_norm_of_vectors() -> Case:
    return Case(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, CLASSES)), torch.randn(SAMPLES, 5))


@case
def group_norm() -> Case:
    return _normed(nn.GroupNorm(2, 4), 6, 5)


@case
def layer_norm() -> Case:
    return _normed(nn.LayerNorm([4, 4, 3]), 6, 5)


@case
def instance_norm() -> Case:
    return _normed(nn.InstanceNorm2d(4, affine=True), 6, 5)


@case
def instance_norm_with_statistics() -> Case:
    return _normed(nn.InstanceNorm2d(4, affine=True, track_running_stats=True), 6, 5)


@case
def weight_norm() -> Case:
    wrap = nn.utils.parametrizations.weight_norm
    return Case(nn.Sequential(wrap(nn.Conv1d(2, 4, 3)), nn.Tanh(), nn.Flatten(), wrap(nn.Linear(16, CLASSES))), images(2, 6))


@case
def orthogonal_and_spectral_norm() -> Case:
    wrap = nn.utils.parametrizations
    return Case(
        nn.Sequential(wrap.spectral_norm(nn.Linear(5, 5)), nn.Tanh(), wrap.orthogonal(nn.Linear(5, CLASSES))),
        torch.randn(SAMPLES, 5),
    )


# --- attention ------------------------------------------------------------------------------------


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


# --- text -----------------------------------------------------------------------------------------


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


# --- some of the parameters -----------------------------------------------------------------------


@case
def frozen_backbone() -> Case:
    model, pool, _ = resnet()
    for p in list(model.parameters())[:-2]:
        p.requires_grad_(False)
    return Case(model, pool)


@case
def frozen_weights() -> Case:
    model, pool, _ = _convolution("plain_")()
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("bias"))
    return Case(model, pool)


@case
def frozen_biases() -> Case:
    model, pool, _ = _convolution("plain_")()
    for name, p in model.named_parameters():
        p.requires_grad_(not name.endswith("bias"))
    return Case(model, pool)


@case
def half_of_the_parameters() -> Case:
    model, pool, _ = vit()
    names = [name for name, _ in model.named_parameters()]
    return Case(model, pool, set(names[::2]).__contains__)


@case
def an_unused_parameter() -> Case:
    model, pool, _ = mlp()
    model.register_parameter("unused", nn.Parameter(torch.randn(3)))
    return Case(Function(lambda self, x: self.body[:5](x), body=model), pool)


@case
def scalar_parameter() -> Case:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(x) * self.temperature.exp()

    parts = {"head": nn.Linear(5, CLASSES), "temperature": nn.Parameter(torch.tensor(math.log(2)))}
    return Case(Function(forward, **parts), torch.randn(SAMPLES, 5))


NAMES = tuple(_CASES)


def factor_everything(patch: Any, *preferred: str) -> None:
    """Makes ghost factor whatever it can, also where that does not pay (these models are small); `patch` undoes it.

    Args:
        patch: pytest's MonkeyPatch.
        preferred: ways of `plan.ways_of`, the first that is open being taken; none given: "grams", "tiles".
    """
    preferred = preferred or ("grams", "tiles")
    from saal_fast.engines import plan  # noqa: PLC0415 - the models themselves need nothing of saal_fast

    ways_of = plan.ways_of

    def least(calls: list[Any], linear: bool) -> str:
        return next(way for way in (*preferred, "direct") if way in ways_of(calls, linear))

    patch.setattr(plan, "LANES", 1)
    patch.setattr(plan, "best_way", least)
