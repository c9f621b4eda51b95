"""How a host function launches a kernel: a tuning choice, a layer's geometry, operands with their strides.

Tuning choices are explicit short lists beside each kernel, chosen by shape, so that every one of them can be compiled ahead
of time for any architecture, without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

ENOUGH = 512
"""Programs that keep a GPU's hundred-odd multiprocessors busy, several each."""


@dataclass(frozen=True)
class Config:
    """A tuning choice.

    Attributes:
        blocks: block lengths by the name of the kernel's argument, powers of two; at least 16 where blocks are multiplied.
        num_warps: warps a program.
        num_stages: loads in flight in the innermost loop.
        bits: of the operands it is for, 16 or 32; None for both. fp32's, each kept as two TF32 parts, fill registers sooner.
    """

    blocks: Mapping[str, int]
    num_warps: int = 4
    num_stages: int = 2
    bits: int | None = None

    @property
    def name(self) -> str:
        """As it is told in budgets and tables."""
        return "-".join([*(f"{k}{v}" for k, v in self.blocks.items()), f"w{self.num_warps}", f"s{self.num_stages}"])


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, with all it takes.

    Attributes:
        kernel: a function of `triton.jit`.
        programs: how many programs run; all kernels here have a grid of one dimension.
        args: tensors and numbers by name.
        constants: constexprs by name, block lengths aside.
        config: the tuning choice.
    """

    kernel: Any
    programs: int
    args: Mapping[str, Any]
    constants: Mapping[str, Any]
    config: Config

    def run(self) -> None:
        """Queues the kernel on the current stream of the tensors' device."""
        if self.programs == 0:
            return
        device = next(a.device for a in self.args.values() if isinstance(a, Tensor))
        tuning = {"num_warps": self.config.num_warps, "num_stages": self.config.num_stages}
        if device.type != "cuda":  # the interpreter
            self.kernel[(self.programs,)](**self.args, **self.constants, **self.config.blocks, **tuning)
            return
        with torch.cuda.device(device):
            self.kernel[(self.programs,)](**self.args, **self.constants, **self.config.blocks, **tuning)


class Window(NamedTuple):
    """How a two-dimensional convolution's kernel moves; first down, then across. A linear layer's is the default."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # zeros at the top, bottom, left and right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees one input position, its own."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    def constants(self, patches: bool) -> dict[str, Any]:
        """The constexprs of a kernel that loads columns by this window."""
        names = ("KH", "KW"), ("SH", "SW"), ("PH", "PW"), ("DH", "DW")
        pairs = (self.kernel, self.stride, self.padding[::2], self.dilation)
        each = {n: v for two, pair in zip(names, pairs, strict=True) for n, v in zip(two, pair, strict=True)}
        return {**each, "PATCHES": patches}


LINEAR = Window()


def window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Window:
    """A window, from an operator's lists."""
    two = [(int(v[0]), int(v[1])) for v in (kernel, stride, dilation)]
    top, bottom, left, right = padding
    return Window(two[0], two[1], (top, bottom, left, right), two[2], groups)


@dataclass(frozen=True)
class Rows:
    """Output gradients (or outputs) as G [N, groups * O, T] in any layout: the tensor with its three strides."""

    tensor: Tensor
    count: int
    channels: int
    positions: int
    across: int  # positions in a row of an image
    strides: tuple[int, int, int]

    @classmethod
    def of(cls, tensor: Tensor) -> Rows:
        """Of a linear layer's output [N, T, O], or a convolution's [N, O, height, width]."""
        if tensor.ndim == 3:
            n, t, o = tensor.shape
            return cls(tensor, n, o, t, t, (tensor.stride(0), tensor.stride(2), tensor.stride(1)))
        n, o, height, width = tensor.shape
        tensor = tensor if _evenly(tensor) else tensor.contiguous()
        return cls(tensor, n, o, height * width, width, (tensor.stride(0), tensor.stride(1), _step(tensor)))

    def args(self, name: str, channel: str, position: str) -> dict[str, Any]:
        """As arguments of a kernel: the pointer and three strides."""
        s_n, s_c, s_t = self.strides
        return {f"p_{name}": self.tensor, f"s_{name}_n": s_n, f"s_{name}_{channel}": s_c, f"s_{name}_{position}": s_t}


@dataclass(frozen=True)
class Columns:
    """A layer's input, from which a kernel loads A: rows [N, T, D], or images [N, C, height, width] and a window."""

    tensor: Tensor
    window: Window
    shape: tuple[int, int, int]  # channels, height, width
    strides: tuple[int, int, int, int]
    evenly: bool = True  # whether positions, row by row, lie evenly spaced

    @classmethod
    def of(cls, tensor: Tensor, window: Window) -> Columns:
        """Of a linear layer's input [N, T, D], or of images."""
        if tensor.ndim == 3:
            _, t, d = tensor.shape
            return cls(tensor, window, (d, 1, t), (tensor.stride(0), tensor.stride(2), 0, tensor.stride(1)))
        c, height, width = tensor.shape[1:]
        return cls(
            tensor,
            window,
            (c, height, width),
            (tensor.stride(0), tensor.stride(1), tensor.stride(2), _step(tensor)),
            _evenly(tensor),
        )

    @property
    def depth(self) -> int:
        """D: inputs per output."""
        return self.shape[0] // self.window.groups * math.prod(self.window.kernel)

    @property
    def patches(self) -> bool:
        """Whether columns are patches; else they are positions, evenly spaced."""
        return not (self.window.pointwise and self.evenly)

    def args(self, name: str) -> dict[str, Any]:
        """As arguments of a kernel: the pointer and its strides."""
        values = (self.tensor, *self.strides)
        return dict(zip((f"p_{name}", *(f"s_{name}_{d}" for d in "nchw")), values, strict=True))


def _evenly(images: Tensor) -> bool:
    """Whether an image's positions, row by row, lie evenly spaced."""
    height, width = images.shape[2:]
    return height == 1 or width == 1 or images.stride(2) == width * images.stride(3)


def _step(images: Tensor) -> int:
    """How far apart neighbours of a row are, or of a column where it is the only one."""
    return images.stride(2 if images.shape[3] == 1 else 3)


def shared_dtype(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one dtype, the widest of theirs."""
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = torch.promote_types(dtype, t.dtype)
    return [t.to(dtype) for t in tensors]


def precision(dtype: torch.dtype) -> str:
    """How blocks are multiplied: fp32 by three TF32 products, whose sum is as good as fp32's, unless PyTorch may use TF32.

    Half-precision operands are exact in TF32, so that one product does.
    """
    if dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "tf32x3"


def cdiv(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)
