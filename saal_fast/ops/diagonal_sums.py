"""The Gram matrix of convolution patches from that of pixels, without the patches.

At stride 1, `Σ_c Σ_k a[c, t + k] x[c, t' + k]` is the sum over the kernel's offsets k of `P[t + k, t' + k]`, with
`P[s, s'] = Σ_c a[c, s] x[c, s']`. P costs `S² C` multiply-adds where patches cost `T² C K` (K = 9 for 3×3), and no patch is
ever copied; the sums are `T² K` additions, bound by memory: the C++ twin reads P from the cache K times and writes once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, library

from .. import _native


def reference(
    pixels: Tensor, space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]
) -> Tensor:
    """`out[n, t, t'] = Σ_k pixels[n, t + k, t' + k]` over the offsets k of a kernel, with zeros outside of the images.

    Args:
        pixels: P [N, S, S] with S the product of `space`.
        space: size of the images, one to three dimensions.
        kernel: size of the kernel.
        before: zeros before the first pixel of each dimension.
        after: zeros after the last one.
        dilation: dilation.

    Returns:
        [N, T, T], T the number of the convolution's output positions at stride 1.
    """
    dims = len(space)
    gram = pixels.reshape(-1, *space, *space)
    for i in range(dims):
        first, second = 1 + i, 1 + dims + i
        pads = [0] * (2 * gram.ndim)
        for dim in (first, second):
            pads[2 * (gram.ndim - 1 - dim)], pads[2 * (gram.ndim - 1 - dim) + 1] = before[i], after[i]
        gram = F.pad(gram, pads)
        size = gram.shape[first] - (kernel[i] - 1) * dilation[i]
        starts = [k * dilation[i] for k in range(kernel[i])]
        gram = torch.stack([gram.narrow(first, k, size).narrow(second, k, size) for k in starts]).sum(0)
    positions = _positions(space, kernel, before, after, dilation)
    return gram.reshape(-1, positions, positions)


diagonal_sums = library.custom_op("saal_fast::diagonal_sums", reference, mutates_args=())


@diagonal_sums.register_kernel("cpu")
def _cpu(
    pixels: Tensor, space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]
) -> Tensor:
    if pixels.dtype in (torch.bfloat16, torch.float16):
        sums: Tensor = diagonal_sums(pixels.float(), space, kernel, before, after, dilation)
        return sums.to(pixels.dtype)
    if len(space) > 2 or pixels.dtype not in (torch.float32, torch.float64):
        return reference(pixels, space, kernel, before, after, dilation)
    positions = _positions(space, kernel, before, after, dilation)
    pixels = pixels.contiguous()
    out = pixels.new_empty(pixels.shape[0], positions, positions)
    flat = 2 - len(space)  # a signal is an image of one row
    space, kernel, dilation = [1] * flat + space, [1] * flat + kernel, [1] * flat + dilation
    before, after = [0] * flat + before, [0] * flat + after
    outputs = [_size(*sizes) for sizes in zip(space, kernel, before, after, dilation, strict=True)]
    add = _native.core().diagonal_sums_f32 if pixels.dtype == torch.float32 else _native.core().diagonal_sums_f64
    add(
        pixels.data_ptr(), out.data_ptr(), len(pixels), (*space, *outputs), kernel, before, dilation, torch.get_num_threads()
    )
    return out


@diagonal_sums.register_fake
def _fake(
    pixels: Tensor, space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]
) -> Tensor:
    positions = _positions(space, kernel, before, after, dilation)
    return pixels.new_empty(pixels.shape[0], positions, positions)


@diagonal_sums.register_vmap
def _vmap(
    info: object,
    in_dims: tuple[int | None, ...],
    pixels: Tensor,
    space: list[int],
    kernel: list[int],
    before: list[int],
    after: list[int],
    dilation: list[int],
) -> tuple[Tensor, int]:
    pixels = pixels.movedim(in_dims[0] or 0, 0)
    out: Tensor = diagonal_sums(pixels.flatten(0, 1), space, kernel, before, after, dilation)
    return out.reshape(*pixels.shape[:2], *out.shape[1:]), 0


def _size(space: int, kernel: int, before: int, after: int, dilation: int) -> int:
    return space + before + after - (kernel - 1) * dilation


def _positions(space: list[int], kernel: list[int], before: list[int], after: list[int], dilation: list[int]) -> int:
    count = 1
    for sizes in zip(space, kernel, before, after, dilation, strict=True):
        count *= _size(*sizes)
    return count
