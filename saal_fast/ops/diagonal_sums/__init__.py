"""The Gram matrix of convolution patches from that of pixels, without the patches.

At stride 1, `Σ_c Σ_k a[c, t + k] x[c, t' + k]` is the sum over the kernel's offsets k of `P[t + k, t' + k]`, with
`P[s, s'] = Σ_c a[c, s] x[c, s']`. P costs `S² C` multiply-adds where patches cost `T² C K` (K = 9 for 3×3), and no patch is
ever copied; the sums are `T² K` additions, bound by memory: the C++ kernel reads P from the cache K times and writes once.
"""

from __future__ import annotations

from torch import Tensor, library

from ..common.registration import register
from . import cpu, reference


@library.custom_op("saal_fast::diagonal_sums", mutates_args=())
def diagonal_sums(
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
    return reference.diagonal_sums(pixels, space, kernel, before, after, dilation)


@diagonal_sums.register_fake
def _fake(pixels: Tensor, *window: list[int]) -> Tensor:
    positions = reference.positions_of(*window)
    return pixels.new_empty(pixels.shape[0], positions, positions)


register(diagonal_sums, reference.diagonal_sums, cpu=cpu.diagonal_sums, shared=(False,))
