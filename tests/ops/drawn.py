"""Layers, inputs and logits drawn by Hypothesis, for every twin of an operation; and how far a twin may be off."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st

TOLERANCE = {
    torch.float32: {"rtol": 2e-4, "atol": 2e-5},  # sums in another order; on a GPU, three TF32 products for one of fp32
    torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},
}
RULES = [("l2", 2.0), ("lp", 1.0), ("lp", 2.0), ("lp", 1.5), ("lp", 3.0), ("adaptive", 2.0)]


class Drawn(NamedTuple):
    """A layer's tensors. `window` is kernel, stride, padding, dilation and groups; None for a linear layer."""

    a: torch.Tensor
    g: torch.Tensor
    x: torch.Tensor
    weight: torch.Tensor
    scales: torch.Tensor
    base: torch.Tensor
    window: tuple | None

    def to(self, device):
        return Drawn(*(t.to(device) for t in self[:-1]), self.window)

    def double(self):
        return Drawn(*(t.double() for t in self[:-1]), self.window)


@st.composite
def strided(draw, *shape, dtype, like=None):
    """Random numbers in some layout: contiguous, transposed, every other element, or from the middle of a row."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    layout = draw(st.sampled_from(["plain", "channels last", "gaps", "inside"]))
    if layout == "channels last" and len(shape) > 2:
        return torch.randn(shape[0], *shape[2:], shape[1], generator=generator).to(dtype).movedim(-1, 1)
    if layout == "gaps":
        return torch.randn(*shape[:-1], 2 * shape[-1], generator=generator).to(dtype)[..., ::2]
    if layout == "inside":
        return torch.randn(*shape[:-1], shape[-1] + 3, generator=generator).to(dtype)[..., 1:-2]
    return torch.randn(*shape, generator=generator).to(dtype)


sizes = st.sampled_from([1, 1, 2, 3, 5, 17, 33, 66])
samples = st.sampled_from([0, 1, 2, 3, 3])
dtypes = st.sampled_from([torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16])


@st.composite
def linears(draw, dtypes=dtypes):
    """A linear layer with odd, empty and strided inputs; T, D or O may be 1."""
    n, t, s, d, o = draw(samples), draw(sizes), draw(sizes), draw(sizes), draw(sizes)
    if draw(st.integers(0, 9)) == 0:
        t = 0
    dtype = draw(dtypes)
    g, base = draw(strided(n, t, o, dtype=dtype)), draw(strided(n, s, o, dtype=dtype))
    a, x = draw(strided(n, t, d, dtype=dtype)), draw(strided(n, s, d, dtype=dtype))
    return Drawn(a, g, x, draw(strided(o, d, dtype=dtype)), torch.rand(n) + 0.5, base, None)


@st.composite
def convs(draw, dtypes=dtypes):
    """A two-dimensional convolution: stride, uneven padding, dilation and groups, X' of another size."""
    n, groups, dtype = draw(samples), draw(st.sampled_from([1, 1, 2, 3])), draw(dtypes)
    channels, outputs = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3, 18]))
    kernel, stride, dilation, padding, space, other = [], [], [], [], [], []
    for _ in range(2):
        k, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        pads = [draw(st.integers(0, 2)), draw(st.integers(0, 2))]
        least = max(1, (k - 1) * d + 1 - sum(pads))
        kernel.append(k)
        dilation.append(d)
        padding += pads
        stride.append(draw(st.integers(1, 3)))
        space.append(least + draw(st.integers(0, 6)))
        other.append(least + draw(st.integers(0, 6)))

    def out(size):
        return [
            (size[i] + sum(padding[2 * i : 2 * i + 2]) - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1
            for i in range(2)
        ]

    a, x = (draw(strided(n, channels * groups, *size, dtype=dtype)) for size in (space, other))
    g, base = (draw(strided(n, outputs * groups, *out(size), dtype=dtype)) for size in (space, other))
    weight = draw(strided(outputs * groups, channels, *kernel, dtype=dtype))
    return Drawn(a, g, x, weight, torch.rand(n) + 0.5, base, (kernel, stride, padding, dilation, groups))


@st.composite
def rows_of_logits(draw, dtypes=dtypes):
    """Logits: spread so that rows are certain, even or tied; some classes masked by -inf."""
    n, classes = draw(st.integers(0, 3)), draw(st.sampled_from([2, 3, 10, 127, 129, 1000, 5000]))
    spread = draw(st.sampled_from([0.0, 0.1, 1.0, 10.0, 40.0]))
    z = draw(strided(n, classes, dtype=torch.float32)) * spread
    if draw(st.booleans()):
        masked = torch.rand(n, classes, generator=torch.Generator().manual_seed(classes)) < 0.5
        masked[:, draw(st.integers(0, classes - 1))] = False
        z = z.masked_fill(masked, -torch.inf)
    return z.to(draw(dtypes))
