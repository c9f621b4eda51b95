"""Convolutions over 1, 2 or 3 dimensions, seen as a linear layer over patches.

At stride 1 the Gram matrix of patches comes from the pixels' (see `ops/diagonal_sums/`); else patches are copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ops import depthwise, winograd
from ...ops.common.elementwise import contribution, direction
from ...ops.common.window import Window
from ...ops.depthwise import depthwise_apply, depthwise_gradient
from ...ops.diagonal_sums import diagonal_sums
from ...ops.ghost import ghost_apply, ghost_norm
from ...ops.materialized import apply_materialized, materialize_gradient
from ...ops.tiles import tile_apply, tile_norm
from .base import Code, LayerCall, register_layer, register_replacement, takes_tangents

Pair = tuple[int, int]


@dataclass(frozen=True)
class Conv:
    """Geometry of a convolution; an entry a spatial dimension.

    Attributes:
        kernel: kernel size.
        stride: stride.
        padding: zeros before and after.
        dilation: dilation.
        groups: groups.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[Pair, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def dims(self) -> int:
        """How many spatial dimensions there are."""
        return len(self.kernel)

    def unfold_input(self, x: Tensor) -> Tensor:
        """See `Layer`. The copy of patches (im2col) by strided views, for any number of dimensions."""
        x = F.pad(x, [n for pair in reversed(self.padding) for n in pair])
        for i, (kernel, stride, dilation) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + i, (kernel - 1) * dilation + 1, stride)[..., ::dilation]  # [n, C, *T, *kernel]
        d = self.dims
        kernels_first = x.permute(1, *range(2 + d, 2 + 2 * d), 0, *range(2, 2 + d))  # [C, *kernel, n, *T]: one copy
        return kernels_first.reshape(self.groups, x.shape[1] * math.prod(self.kernel) // self.groups, -1)

    def gram(self, a: Tensor, x: Tensor) -> Tensor:
        """See `Layer`."""
        if not self._from_pixels:
            return self.unfold_input(a).mT @ self.unfold_input(x)
        n, m, space = a.shape[0], x.shape[0], list(a.shape[2:])
        pixels = self._pixels(a).mT @ self._pixels(x)  # [groups, n * S, m * S]
        size = math.prod(space)
        pixels = pixels.reshape(self.groups, n, size, m, size).transpose(2, 3).reshape(-1, size, size)
        before, after = [p[0] for p in self.padding], [p[1] for p in self.padding]
        gram: Tensor = diagonal_sums(pixels, space, list(self.kernel), before, after, list(self.dilation))
        positions = gram.shape[-1]
        gram = gram.reshape(self.groups, n, m, positions, positions).transpose(2, 3)
        return gram.reshape(self.groups, n * positions, m * positions)

    def flatten_grad(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        n, channels = g.shape[:2]
        return g.reshape(n, self.groups, channels // self.groups, -1).permute(1, 2, 0, 3).flatten(2)

    def unflatten_output(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        n = like.shape[0]
        return y.reshape(*y.shape[:2], n, -1).permute(2, 0, 1, 3).reshape(like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        pixels = x.numel() // x.shape[1]
        kernel = math.prod(self.kernel)
        if self._from_pixels:
            return float(pixels**2 * x.shape[1] + positions**2 * kernel * self.groups)
        return float(positions**2 * x.shape[1] * kernel)

    def matrix(self, weight: Tensor) -> Tensor:
        """See `Layer`."""
        return weight

    def shared(self, call: LayerCall) -> Tensor | None:
        """See `SupportsSharedWeight`."""
        one = self._dense and call.input.shape[0] == 1 and not takes_tangents()
        if not (one and winograd.is_faster(call.input, call.weight)):
            return None
        out = winograd.differentiable_conv(call.input, call.weight, [n for pair in self.padding for n in pair])
        return out if call.bias is None else self.add_bias(out, call.bias)

    def materialize_flops(self, call: LayerCall, positions: int) -> float:
        plain = float(positions * call.weight.numel())
        return plain * winograd.PRODUCTS_SHARE if self._dense and winograd.supports(call.weight) else plain

    @property
    def _dense(self) -> bool:
        """Whether it is one over images, at every pixel."""
        return self.dims == 2 and (self.stride, self.dilation, self.groups) == ((1, 1), (1, 1), 1)

    def tiles(self, x: Tensor) -> bool:
        return self.dims <= 2 and x.shape[0] == 1

    def small(self, call: LayerCall) -> bool:
        """See `SupportsTiles`."""
        return self._depthwise(call.weight) and call.input.shape[0] == 1

    def _depthwise(self, weight: Tensor) -> bool:
        """Whether it is one of each channel, that the operations know."""
        one_each = self.dims == 2 and self.groups == weight.shape[0] and weight.shape[1] == 1
        one_each = one_each and math.prod(weight.shape[2:]) >= MIN_DEPTHWISE_PLACES
        return one_each and weight.device.type == "cpu" and depthwise.supports(Window.of(self._window))

    def tile_norm(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> Tensor:
        a, g, weight = self._images(a), self._images(g), self._images(weight)
        total: Tensor = tile_norm(a, g, weight, self._window, *code)
        return total[0]

    def tile_apply(self, a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        tensors = [self._images(t) for t in (a, g, x, weight)]
        out: Tensor = tile_apply(*tensors, scale[None], self._window, *code)
        return out if self.dims == 2 else out.squeeze(2)

    def materialize(self, a: Tensor, g: Tensor, weight: Tensor, code: Code) -> tuple[Tensor, Tensor]:
        if self._depthwise(weight):
            gradient = depthwise_gradient(a, g.to(a.dtype), self._window).transpose(0, 1)
            return contribution(gradient, weight, *code).sum(), gradient
        norm, gradient = materialize_gradient(*map(self._images, (a, g, weight)), self._window, *code)
        return norm[0], gradient

    def apply_materialized(self, gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor, code: Code) -> Tensor:
        x, weight = self._images(x), self._images(weight)
        x = _channels_last(x) if _is_large(x) else x
        if self._depthwise(weight):
            own = weight + scale * direction(gradient, weight, *code)
            of_each: Tensor = depthwise_apply(x, own.to(x.dtype).transpose(0, 1), self._window)
            return of_each
        out: Tensor = apply_materialized(gradient, x, weight, scale[None], self._window, *code)
        return out if self.dims == 2 else out.squeeze(2)

    def add_bias(self, out: Tensor, bias: Tensor) -> Tensor:
        return out + bias.reshape(-1, *(1,) * self.dims)

    def join_uses(self, uses: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor] | None:
        return uses[0] if len(uses) == 1 and self.dims <= 2 and uses[0][0].shape[0] == 1 else None

    def ghost_norm(self, a: Tensor, g: Tensor, bias: bool) -> Tensor:
        total: Tensor = ghost_norm(self._images(a), self._images(g), self._window, bias)
        return total[0]

    def ghost_apply(self, a: Tensor, g: Tensor, x: Tensor, scale: Tensor, base: Tensor, bias: bool) -> Tensor:
        a, g, x, under = (self._images(t) for t in (a, g, x, base))
        out: Tensor = ghost_apply(a, g, x, scale[None], under, self._window, bias)
        return out.reshape(base.shape)

    def _images(self, x: Tensor) -> Tensor:
        """A signal is an image of one row."""
        return x if self.dims == 2 else x.unsqueeze(2)

    @cached_property
    def _window(self) -> list[int]:
        """The convolution over images, as operators take it."""
        kernel, stride, dilation = (_down_across(each) for each in (self.kernel, self.stride, self.dilation))
        (top, bottom), (left, right) = ((0, 0), *self.padding)[-2:]
        return Window(kernel, stride, (top, bottom, left, right), dilation, self.groups).to_list()

    @property
    def _from_pixels(self) -> bool:
        return all(s == 1 for s in self.stride)

    def _pixels(self, x: Tensor) -> Tensor:
        """[n, C, *S] as [groups, C / groups, n * S]."""
        return self.flatten_grad(x)


def _down_across(each: tuple[int, ...]) -> Pair:
    """Numbers of a signal or of images, as of images."""
    return (1, each[0]) if len(each) == 1 else (each[0], each[1])


def _each(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _padding(padding: int | tuple[int, ...] | str, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[Pair, ...]:
    if padding == "same":  # the odd one goes after, as torch does it
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):  # "valid"
        return ((0, 0),) * len(kernel)
    return tuple((p, p) for p in _each(padding, len(kernel)))


@register_layer(F.conv1d, F.conv2d, F.conv3d)  # torch.conv2d and its kin are the same objects
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> LayerCall | None:
    """`F.conv1d`, `F.conv2d`, `F.conv3d`; an input without its batch dimension is left to autograd."""
    dims = weight.ndim - 2
    if input.ndim != weight.ndim:
        return None
    kernel, dilation = tuple(weight.shape[2:]), _each(dilation, dims)
    layer = Conv(kernel, _each(stride, dims), _padding(padding, kernel, dilation), dilation, groups)
    return LayerCall(layer, input, weight, bias)


MIN_DEPTHWISE_PLACES = 25
"""Places of a depthwise kernel from which its own operations beat the grouped convolutions that `vmap` makes (3×3 loses)."""

MIN_PIXELS_CHANNELS_LAST = 512
"""Pixels of an image from which a CPU's float32 convolutions are faster channels last."""


def _last(images: Tensor) -> Tensor:
    """Channels as the last dimension; a view."""
    return images.movedim(1, -1)


def _back(images: Tensor) -> Tensor:
    """The inverse of `_last`."""
    return images.movedim(-1, 1)


def _channels_last(images: Tensor) -> Tensor:
    """Laid out with channels side by side, also under `vmap`."""
    return _back(_last(images).contiguous())


def _is_large(images: Tensor) -> bool:
    """Whether a CPU's convolutions are faster channels last; in half precision they always are."""
    least = 1 if torch.is_autocast_enabled("cpu") else MIN_PIXELS_CHANNELS_LAST
    return images.device.type == "cpu" and math.prod(images.shape[2:]) >= least


def _faster_on_cpu(convolution: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same convolution, in a form whose passes are faster on a CPU.

    A 1×1 convolution with a stride becomes one without, over the pixels it looks at. Large images are turned to channels
    last and stay so until they are small: else every convolution turns them there and back, half of an early layer's time.
    """

    def convolve(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Tensor:
        if input.ndim != weight.ndim:
            return convolution(input, weight, bias, stride, padding, dilation, groups)
        dims = weight.ndim - 2
        large = dims == 2 and _is_large(input)
        if large:  # the weight too: backward does not see the layout of the input
            input, weight = _channels_last(input), _channels_last(weight)
        steps = _each(stride, dims)
        unpadded = padding == "valid" or not (isinstance(padding, str) or any(_each(padding, dims)))
        if math.prod(weight.shape[2:]) == 1 and max(steps) > 1 and unpadded:
            space = [slice(None, None, step) for step in steps]
            seen = (slice(None), *space) if large else (slice(None), slice(None), *space)
            # Backward lays a slice out as what was sliced.
            input = _back(_last(input)[seen]) if large else input[seen]
            stride = 1
        out = convolution(input, weight, bias, stride, padding, dilation, groups)
        return out.contiguous() if large and not _is_large(out) else out

    return convolve


for _convolution in (F.conv1d, F.conv2d, F.conv3d):
    register_replacement(_convolution)(_faster_on_cpu(_convolution))
