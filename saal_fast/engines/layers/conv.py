"""Convolutions over 1, 2 or 3 dimensions, seen as a linear layer over patches.

**The Gram matrix of patches without the patches.** At stride 1, entry (t, t') of `AᵀA'` is
`Σ_k Σ_c a[c, t + k] a'[c, t' + k]`: a sum, over the kernel's offsets k, of the *pixels'* Gram matrix
`P[s, s'] = Σ_c a[c, s] a'[c, s']` shifted along its diagonal. P costs `S² C` multiply-adds where patches cost `T² C K`
(K the kernel's size, 9 for 3×3), and no patch is ever copied. The shifts are taken one dimension after the other:
3 + 3 additions for 3×3, not 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .base import Call, reads

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

    def columns(self, x: Tensor) -> Tensor:
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
            return self.columns(a).mT @ self.columns(x)
        n, m, space = a.shape[0], x.shape[0], a.shape[2:]
        gram = self._pixels(a).mT @ self._pixels(x)
        gram = gram.reshape(self.groups, n, *space, m, *space)
        for i in range(self.dims):
            gram = self._diagonal_sums(gram, i)
        return gram.reshape(self.groups, n * math.prod(gram.shape[2 : 2 + self.dims]), -1)

    def rows(self, g: Tensor) -> Tensor:
        """See `Layer`."""
        n, channels = g.shape[:2]
        return g.reshape(n, self.groups, channels // self.groups, -1).permute(1, 2, 0, 3).flatten(2)

    def unrows(self, y: Tensor, like: Tensor) -> Tensor:
        """See `Layer`."""
        n = like.shape[0]
        return y.reshape(*y.shape[:2], n, -1).permute(2, 0, 1, 3).reshape(like.shape)

    def gram_flops(self, x: Tensor, positions: int) -> float:
        """See `Layer`."""
        pixels = x.numel() // x.shape[1]
        kernel = math.prod(self.kernel)
        if self._from_pixels:
            return float(pixels**2 * x.shape[1] + positions**2 * sum(self.kernel) * self.groups)
        return float(positions**2 * x.shape[1] * kernel)

    @property
    def _from_pixels(self) -> bool:
        return all(s == 1 for s in self.stride)

    def _pixels(self, x: Tensor) -> Tensor:
        """[n, C, *S] as [groups, C / groups, n * S]."""
        return self.rows(x)

    def _diagonal_sums(self, gram: Tensor, i: int) -> Tensor:
        """Σ_k gram[.., t + k - before, .., t' + k - before, ..] along spatial dimension i of both sides."""
        first, second = 2 + i, 3 + self.dims + i
        (before, after), dilation = self.padding[i], self.dilation[i]
        if self.kernel[i] == 1 and before == after == 0:
            return gram
        if before or after:
            pads = [0] * (2 * gram.ndim)
            for dim in (first, second):
                pads[2 * (gram.ndim - 1 - dim)], pads[2 * (gram.ndim - 1 - dim) + 1] = before, after
            gram = F.pad(gram, pads)
        size = gram.shape[first] - (self.kernel[i] - 1) * dilation
        shifts = (gram.narrow(first, k * dilation, size).narrow(second, k * dilation, size) for k in range(self.kernel[i]))
        total = next(shifts)
        for shift in shifts:
            total = total + shift
        return total


def _each(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _padding(padding: int | tuple[int, ...] | str, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[Pair, ...]:
    if padding == "same":  # the odd one goes after, as torch does it
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    if isinstance(padding, str):  # "valid"
        return ((0, 0),) * len(kernel)
    return tuple((p, p) for p in _each(padding, len(kernel)))


@reads(F.conv1d, F.conv2d, F.conv3d)  # torch.conv2d and its kin are the same objects
def conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Call | None:
    """`F.conv1d`, `F.conv2d`, `F.conv3d`; an input without its batch dimension is left to autograd."""
    dims = weight.ndim - 2
    if input.ndim != weight.ndim:
        return None
    kernel, dilation = tuple(weight.shape[2:]), _each(dilation, dims)
    layer = Conv(kernel, _each(stride, dims), _padding(padding, kernel, dilation), dilation, groups)
    return Call(layer, input, weight, bias)
