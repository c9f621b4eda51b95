"""Layers, inputs and logits drawn by Hypothesis, for every kernel of an operation; and how far a kernel may be off."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import strategies as st

from saal_fast.ops.common.window import Window

TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 2e-4, "atol": 2e-5},  # sums in another order; on a GPU, three TF32 products for one of fp32
    torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},
}
RULES = [("l2", 2.0), ("lp", 1.0), ("lp", 2.0), ("lp", 1.5), ("lp", 3.0), ("lp", 20 / 19), ("adaptive", 2.0)]
FEW_RULES = [rule if rule in RULES[::3] else pytest.param(rule, marks=pytest.mark.slow) for rule in RULES]
"""Quickly one of each kind."""


def close(actual, expected, dtype=None, size=1.0):
    """Holds to the tolerances of a type (else the actual one), for numbers whose largest is 1, or `size` if that is more."""
    scale = max(float(expected.abs().max()) if expected.numel() else size, size)
    tolerance = TOLERANCE[dtype or actual.dtype]
    torch.testing.assert_close(actual.cpu().double() / scale, expected.double() / scale, **tolerance)


class Drawn(NamedTuple):
    """A layer's tensors, and its window as operators take it."""

    a: torch.Tensor
    g: torch.Tensor
    x: torch.Tensor
    weight: torch.Tensor
    scales: torch.Tensor
    base: torch.Tensor
    window: list[int] | None

    def to(self, to):
        """On a device, or in a type."""
        return Drawn(*(t.to(to) for t in self[:-1]), self.window)

    def double(self):
        return self.to(torch.float64)

    def exact(self):
        """With whole numbers, whose products are exact: else a gradient of nearly 0 could have either sign."""
        return self._replace(a=self.a.mul(2).round(), g=self.g.mul(2).round())

    def layer(self, x, weight, bias=None):
        """The layer's output as PyTorch has it, bias or not."""
        out = Window.of(self.window).layer(x, weight)
        return out if bias is None else out + bias.reshape(-1, *(1,) * (weight.ndim - 2))

    def gradients(self):
        """Each sample's gradients at weight and bias, by autograd."""
        for a, g in zip(self.a, self.g, strict=True):
            w = self.weight.clone(memory_format=torch.contiguous_format).requires_grad_()
            b = torch.zeros(len(w), dtype=w.dtype, requires_grad=True)
            yield torch.autograd.grad((self.layer(a[None], w, b) * g[None]).sum(), (w, b))


def layer_of(shapes, window, seed=0, dtype=torch.float32):
    """A layer of given shapes: a, g, x and weight."""
    generator = torch.Generator().manual_seed(seed)
    a, g, x, weight = (torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes)
    base = torch.randn(Window.of(window).layer(x, weight).shape, dtype=torch.float64, generator=generator).to(dtype)
    scales = torch.rand(len(a), dtype=torch.float64, generator=generator).to(dtype) + 0.5
    return Drawn(a, g, x, weight, scales, base, window)


def laid_out(t, layout):
    """The same numbers in another layout."""
    if layout == "channels last" and t.ndim > 2:
        return t.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "reversed":
        return t.permute(*reversed(range(t.ndim))).contiguous().permute(*reversed(range(t.ndim)))
    if layout == "sparse":
        large = torch.full([2 * n for n in t.shape], torch.nan, dtype=t.dtype)
        every_other = tuple(slice(None, None, 2) for _ in t.shape)
        large[every_other] = t
        return large[every_other]
    return t


LAYOUTS = ["plain", "channels last", "reversed", "sparse"]


@st.composite
def strided(draw, *shape, dtype):
    """Random numbers in some layout: contiguous, channels last, transposed, every other element, or from inside a row."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    layout = draw(st.sampled_from([*LAYOUTS, "inside"]))
    if layout == "inside":
        return torch.randn(*shape[:-1], shape[-1] + 3, generator=generator).to(dtype)[..., 1:-2]
    return laid_out(torch.randn(*shape, generator=generator).to(dtype), layout)


SIZES = (1, 1, 2, 3, 5, 17, 33, 66)
LARGE = (1, 2, 3, 4, 5, 8, 16, 17, 33, 70, 150)
samples = st.sampled_from([0, 1, 2, 3, 3])
dtypes = st.sampled_from([torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16])
wide_dtypes = st.sampled_from([torch.float32, torch.float64])


@st.composite
def linears(draw, dtypes=dtypes, sizes=SIZES):
    """A linear layer with odd, empty and strided inputs; T, D or O may be 1."""
    n, (t, s, d, o) = draw(samples), (draw(st.sampled_from(sizes)) for _ in range(4))
    if draw(st.integers(0, 9)) == 0:
        t = 0
    dtype = draw(dtypes)
    g, base = draw(strided(n, t, o, dtype=dtype)), draw(strided(n, s, o, dtype=dtype))
    a, x = draw(strided(n, t, d, dtype=dtype)), draw(strided(n, s, d, dtype=dtype))
    return Drawn(a, g, x, draw(strided(o, d, dtype=dtype)), torch.rand(n).to(dtype) + 0.5, base, None)


@st.composite
def convs(draw, dtypes=dtypes, channels=(1, 2, 5), outputs=(1, 3, 18)):
    """A two-dimensional convolution: stride, uneven padding, dilation and groups, X' of another size."""
    n, groups, dtype = draw(samples), draw(st.sampled_from([1, 1, 2, 3])), draw(dtypes)
    c, o = draw(st.sampled_from(channels)), draw(st.sampled_from(outputs))
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
    window = [*kernel, *stride, *padding, *dilation, groups]
    output_size = Window.of(window).output_size
    a, x = (draw(strided(n, c * groups, *size, dtype=dtype)) for size in (space, other))
    g, base = (draw(strided(n, o * groups, *output_size(*size), dtype=dtype)) for size in (space, other))
    weight = draw(strided(o * groups, c, *kernel, dtype=dtype))
    return Drawn(a, g, x, weight, torch.rand(n).to(dtype) + 0.5, base, window)


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
