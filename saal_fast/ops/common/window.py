"""A layer's geometry, and a linear layer as a convolution of 1×1.

Operations on a layer take its tensors in one of two layouts, told apart by the argument `window`:

    window None, a linear layer      a, x [N, T, D]       g [N, T, O]         weight [O, D]
    a window, a 2-d convolution      a, x [N, C, H, W]    g [N, O, H', W']    weight [O, C / groups, *kernel]

a are the layer's inputs for N samples, g the loss gradients at its outputs, x other inputs: T' positions, or images of
another size. Rows [N, T, D] are images of D channels, one row and T columns, so that one implementation serves both. With
the convolution seen as a linear layer over patches, a sample's input is A [groups, D, T] and its output gradient
G [groups, O / groups, T], with D = C / groups · kernel and T = H'·W'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """How a 2-d convolution's kernel moves; first down, then across. A linear layer's is the default.

    An operator's arguments cannot be objects: they take `to_list()`, which `of` reads back.

    Attributes:
        kernel: kernel size.
        stride: stride.
        padding: zeros at the top, bottom, left and right.
        dilation: dilation.
        groups: groups.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, numbers: Sequence[int] | None) -> Window:
        """The window of an operator's argument.

        Raises:
            ValueError: the numbers are none that `to_list` gives.
        """
        if numbers is None:
            return LINEAR
        if len(numbers) != 11 or min(*numbers[:4], *numbers[8:]) < 1 or min(numbers[4:8]) < 0:
            raise ValueError(
                "expected a window of 11 whole numbers: kernel and stride (down, across) > 0, four paddings >= 0 (top, "
                f"bottom, left, right), dilation (down, across) and groups > 0; got {list(numbers)}"
            )
        kh, kw, sh, sw, top, bottom, left, right, dh, dw, groups = numbers
        return cls((kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw), groups)

    def to_list(self) -> list[int]:
        """The window as an operator takes it."""
        return [*self.kernel, *self.stride, *self.padding, *self.dilation, self.groups]

    @property
    def before(self) -> tuple[int, int]:
        """Zeros above and to the left."""
        return self.padding[0], self.padding[2]

    def for_core(self) -> tuple[Any, ...]:
        """The window as the C++ core takes it: kernel, stride, zeros before, dilation and groups."""
        return self.kernel, self.stride, self.before, self.dilation, self.groups

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees one input position, its own."""
        return self.kernel == self.stride == (1, 1) and not any(self.padding)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for images of this size."""
        (kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw), _ = self
        return (height + top + bottom - (kh - 1) * dh - 1) // sh + 1, (width + left + right - (kw - 1) * dw - 1) // sw + 1

    def pad(self, x: Tensor) -> Tensor:
        """Images with their zeros around them."""
        top, bottom, left, right = self.padding
        return F.pad(x, (left, right, top, bottom))

    def unfold(self, x: Tensor) -> Tensor:
        """A layer's input as A [N, groups, D, T]; a copy of patches."""
        if self.pointwise:
            return self.outputs(x)
        patches = F.unfold(self.pad(x), self.kernel, self.dilation, 0, self.stride)
        return patches.reshape(len(x), self.groups, patches.shape[1] // self.groups, patches.shape[2])

    def outputs(self, g: Tensor) -> Tensor:
        """A tensor shaped as the layer's output, as G [N, groups, O / groups, T]."""
        n, channels, height, width = as_images(g).shape
        return as_images(g).reshape(n, self.groups, channels // self.groups, height * width)

    def gradients(self, a: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """Each sample's gradient at the weight, `M = G Aᵀ` [N, *weight.shape]."""
        return (self.outputs(g) @ self.unfold(a).mT).reshape(len(a), *weight.shape)

    def layer(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's output at x, without a bias."""
        if x.ndim == 3:
            return F.linear(x, weight)
        return F.conv2d(self.pad(x), weight, None, self.stride, 0, self.dilation, self.groups)

    def layer_of_each(self, x: Tensor, weights: Tensor) -> Tensor:
        """The layer's output at x with a weight of each sample's own [N, *weight.shape], without a bias."""
        if x.ndim == 3:
            return x @ weights.mT
        n, outputs = weights.shape[:2]
        if n == 0:
            return empty_output(x, outputs, self, x.dtype)
        images = self.pad(x).flatten(0, 1)[None]
        out = F.conv2d(images, weights.flatten(0, 1), None, self.stride, 0, self.dilation, n * self.groups)
        return out.reshape(n, outputs, *out.shape[2:])

    def constants(self, patches: bool) -> dict[str, Any]:
        """The constexprs of a Triton kernel that loads columns by this window (`triton/blocks.py`)."""
        names = ("KH", "KW"), ("SH", "SW"), ("PH", "PW"), ("DH", "DW")
        pairs = (self.kernel, self.stride, self.before, self.dilation)
        each = {n: v for two, pair in zip(names, pairs, strict=True) for n, v in zip(two, pair, strict=True)}
        return {**each, "PATCHES": patches}


LINEAR = Window()


def as_images(t: Tensor) -> Tensor:
    """Rows [N, T, D] as images [N, D, 1, T], a view; images as they are."""
    return t.mT.unsqueeze(2) if t.ndim == 3 else t


def output_shape(x: Tensor, outputs: int, window: Window) -> tuple[int, ...]:
    """The shape of a layer's output at x."""
    if x.ndim == 3:
        return x.shape[0], x.shape[1], outputs
    return x.shape[0], outputs, *window.output_size(x.shape[2], x.shape[3])


def empty_output(x: Tensor, outputs: int, window: Window, dtype: torch.dtype) -> Tensor:
    """Room for a layer's output at x; images are channels last where x is."""
    order = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(output_shape(x, outputs, window), dtype=dtype, device=x.device, memory_format=order)


def is_channels_last(x: Tensor) -> bool:
    """Whether these are images with their channels side by side."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def check_layer(
    numbers: Sequence[int] | None,
    a: Tensor,
    g: Tensor,
    weight: Tensor | None = None,
    x: Tensor | None = None,
    scales: Tensor | None = None,
    base: Tensor | None = None,
) -> Window:
    """The window of an operator's argument, if the layer's tensors fit it and each other.

    Raises:
        ValueError: they don't.
    """
    window, linear = Window.of(numbers), numbers is None
    fits = all(t is None or t.ndim == (3 if linear else 4) for t in (a, g, x, base))
    if fits:
        (n, c, *size), (m, o, *out) = _image_shape(a), _image_shape(g)
        groups = window.groups
        fits = n == m and c % groups == o % groups == 0 and tuple(out) == window.output_size(*size)
        if weight is not None:
            fits = fits and weight.shape == ((o, c) if linear else (o, c // groups, *window.kernel))
        if x is not None and scales is not None:
            k, d, *size = _image_shape(x)
            other = window.output_size(*size)
            fits = fits and (k, d) == (n, c) and scales.shape == (n,) and (linear or min(other) > 0)
            fits = fits and (base is None or _image_shape(base) == (n, o, *other))
    if not fits:
        named = {"a": a, "g": g, "weight": weight, "x": x, "scales": scales, "base": base}
        got = ", ".join(f"{name} {list(t.shape)}" for name, t in named.items() if t is not None)
        if linear:
            raise ValueError(
                f"expected a [N, T, D], g [N, T, O], weight [O, D], x [N, T', D], scales [N], base [N, T', O]; got {got}"
            )
        raise ValueError(
            "expected a [N, C, H, W], g [N, O, H', W'] with H', W' the layer's output for a, "
            "weight [O, C / groups, *kernel], x [N, C, *size], scales [N], base like the output at x; "
            f"got {got} with {window}"
        )
    return window


def _image_shape(t: Tensor) -> tuple[int, int, int, int]:
    """The shape of `as_images(t)`."""
    if t.ndim == 3:
        n, positions, channels = t.shape
        return n, channels, 1, positions
    n, channels, height, width = t.shape
    return n, channels, height, width
