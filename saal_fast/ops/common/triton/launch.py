"""How a host function launches a kernel: a tuning choice, a layer's operands with their strides.

Tuning choices are explicit short lists beside each kernel, chosen by shape, so that every one of them can be compiled ahead
of time for any architecture, without a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..window import Window

BUSY_PROGRAMS = 512
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
        """The name in budgets and tables."""
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


@dataclass(frozen=True)
class LayerOutput:
    """Output gradients (or outputs) as G [N, groups * O, T] in any layout: the tensor with its three strides."""

    tensor: Tensor
    count: int
    channels: int
    positions: int
    across: int  # positions in a row of an image
    strides: tuple[int, int, int]

    @classmethod
    def of(cls, tensor: Tensor) -> LayerOutput:
        """Of a linear layer's output [N, T, O], or a convolution's [N, O, height, width]."""
        if tensor.ndim == 3:
            n, t, o = tensor.shape
            return cls(tensor, n, o, t, t, (tensor.stride(0), tensor.stride(2), tensor.stride(1)))
        n, o, height, width = tensor.shape
        tensor = tensor if _evenly(tensor) else tensor.contiguous()
        return cls(tensor, n, o, height * width, width, (tensor.stride(0), tensor.stride(1), _step(tensor)))

    def args(self, name: str) -> dict[str, Any]:
        """As arguments of a kernel: the pointer and three strides."""
        s_n, s_o, s_t = self.strides
        return {f"p_{name}": self.tensor, f"s_{name}_n": s_n, f"s_{name}_o": s_o, f"s_{name}_t": s_t}


@dataclass(frozen=True)
class LayerInput:
    """A layer's input, from which a kernel loads A: rows [N, T, D], or images [N, C, height, width] and a window."""

    tensor: Tensor
    window: Window
    shape: tuple[int, int, int]  # channels, height, width
    strides: tuple[int, int, int, int]
    evenly: bool = True  # whether positions, row by row, lie evenly spaced

    @classmethod
    def of(cls, tensor: Tensor, window: Window) -> LayerInput:
        """Of a linear layer's input [N, T, D], or of images."""
        if tensor.ndim == 3:
            _, t, d = tensor.shape
            return cls(tensor, window, (d, 1, t), (tensor.stride(0), tensor.stride(2), 0, tensor.stride(1)))
        c, height, width = tensor.shape[1:]
        strides = tensor.stride(0), tensor.stride(1), tensor.stride(2), _step(tensor)
        return cls(tensor, window, (c, height, width), strides, _evenly(tensor))

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


@dataclass(frozen=True)
class Layer:
    """A layer's tensors A and G, of one type, as a kernel of the norm takes them."""

    window: Window
    a: LayerInput
    g: LayerOutput

    @classmethod
    def of(cls, window: Window, a: Tensor, g: Tensor) -> Layer:
        """In the widest of their types."""
        a, g = shared_dtype(a, g)
        return cls(window, LayerInput.of(a, window), LayerOutput.of(g))

    @property
    def dtype(self) -> torch.dtype:
        """The tensors' type."""
        return self.a.tensor.dtype

    @property
    def outputs(self) -> int:
        """O: outputs of a group."""
        return self.g.channels // self.window.groups

    def args(self) -> dict[str, Any]:
        """As arguments of a kernel."""
        channels, height, width = self.a.shape
        return {
            **self.a.args("a"),
            **self.g.args("g"),
            "GROUPS": self.window.groups,
            "CHANNELS": channels // self.window.groups,
            "O": self.outputs,
            "D": self.a.depth,
            "T": self.g.positions,
            "HEIGHT": height,
            "WIDTH": width,
            "ACROSS": self.g.across,
        }

    def constants(self) -> dict[str, Any]:
        """As constexprs of a kernel."""
        return {**self.window.constants(self._patches), "PRECISION": precision(self.dtype)}

    @property
    def _patches(self) -> bool:
        return self.a.patches


@dataclass(frozen=True)
class LayerAt(Layer):
    """With another input X' and the output at it, as a kernel of the step takes them; the output may be of another type."""

    x: LayerInput
    out: LayerOutput

    @classmethod
    def at(cls, window: Window, a: Tensor, g: Tensor, x: Tensor, out: Tensor) -> LayerAt:
        """In the widest of the inputs' types."""
        a, g, x = shared_dtype(a, g, x)
        return cls(window, LayerInput.of(a, window), LayerOutput.of(g), LayerInput.of(x, window), LayerOutput.of(out))

    def args(self) -> dict[str, Any]:
        """As arguments of a kernel."""
        _, height, width = self.x.shape
        size = {"S": self.out.positions, "HEIGHT_X": height, "WIDTH_X": width, "ACROSS_X": self.out.across}
        return {**super().args(), **self.x.args("x"), **self.out.args("out"), **size}

    @property
    def _patches(self) -> bool:
        return self.a.patches or self.x.patches


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
