"""Label, loss and gradient from logits, a row a program: `cross_entropy` in Triton.

The row is read once for label and loss, by blocks of classes with a running maximum (online softmax, Milakov & Gimelshein
2018, arXiv:1805.02867), and once more, from the cache, for the gradient. What is summed leaves the label's own term out, so
that a nearly certain row keeps its digits: with y the label, m the largest of the others and c = max(m, z_y),

    r = Σ_{j≠y} exp(z_j - c)     u = exp(z_y - c)     loss = (c - z_y) + log(u + r)     ∂loss/∂z_j = exp(z_j - c) / (u + r)

and `∂loss/∂z_y = -r / (u + r)`. One of u, r is at least 1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.elementwise import working_dtype
from ..common.triton.blocks import log1p
from ..common.triton.launch import Config, Launch
from .reference import MIN_LOSS, check

CONFIGS = (
    Config({"b_C": 128}, num_warps=1),
    Config({"b_C": 1024}, num_warps=4),
    Config({"b_C": 4096}, num_warps=8),
)


@triton.jit
def cross_entropy_kernel(
    p_z, s_z_n, s_z_c,  # logits [N, C]
    p_given,  # labels [N], int64; read with GIVEN only
    p_label,  # [N], int64
    p_loss,  # [N], fp32
    p_grad,  # [N, C], contiguous
    C,
    MIN_LOSS: tl.constexpr, GIVEN: tl.constexpr,
    b_C: tl.constexpr,
):  # fmt: skip
    """One row. Without GIVEN, the label is the largest logit's, the first of equals."""
    i_n = tl.program_id(0).to(tl.int64)
    p_z += i_n * s_z_n
    i_b = tl.arange(0, b_C)
    rest = 0.0  # Σ_{j≠y} exp(z_j - top) over the classes seen
    top = -float("inf")  # the largest logit seen, of all or (with GIVEN) of the others
    if GIVEN:
        label = tl.load(p_given + i_n)
    else:
        label = tl.zeros([], dtype=tl.int64)
    for start in range(0, C, b_C):
        i_c = start + i_b
        z = tl.load(p_z + i_c.to(tl.int64) * s_z_c, mask=i_c < C, other=-float("inf")).to(tl.float32)
        if GIVEN:
            z = tl.where(i_c == label, -float("inf"), z)
        block_top = tl.max(z)
        if GIVEN:
            left_out = -1
        else:
            left_out = tl.min(tl.where(z == block_top, i_c, C - 1))
        shift = tl.where(block_top == -float("inf"), 0.0, block_top)  # a block may be masked as a whole
        block_rest = tl.sum(tl.where(i_c == left_out, 0.0, tl.exp(z - shift)))
        shift = tl.where(tl.maximum(top, block_top) == -float("inf"), 0.0, tl.maximum(top, block_top))
        was, now = tl.exp(top - shift), tl.exp(block_top - shift)
        if GIVEN:
            rest = rest * was + block_rest * now
        else:  # the larger of both maxima is the label's; the other joins the rest
            wins = block_top > top
            rest = tl.where(wins, (rest + 1.0) * was + block_rest, rest + (block_rest + 1.0) * now)
            label = tl.where(wins, left_out, label).to(tl.int64)
        top = tl.maximum(top, block_top)
    if GIVEN:
        own = tl.load(p_z + label * s_z_c, mask=(label >= 0) & (label < C), other=float("nan")).to(tl.float32)
        common = tl.maximum(top, own)
        rest = tl.where(top == -float("inf"), rest, rest * tl.exp(top - common))
    else:
        own = top
        common = top
    u = tl.where(own == common, 1.0, tl.exp(own - common))
    loss = (common - own) + log1p(tl.where(own == common, rest, u + (rest - 1.0)))
    loss = tl.where(common == -float("inf"), float("nan"), loss)  # every class is masked
    tl.store(p_label + i_n, label)
    tl.store(p_loss + i_n, loss)

    loss_scale = 1.0 / tl.minimum(tl.maximum(loss, MIN_LOSS), 1.0)
    p_grad += i_n * C
    for start in range(0, C, b_C):
        i_c = start + i_b
        z = tl.load(p_z + i_c.to(tl.int64) * s_z_c, mask=i_c < C, other=-float("inf")).to(tl.float32)
        share = tl.where(i_c == label, -rest, tl.exp(z - common)) / (u + rest)
        tl.store(p_grad + i_c, (share * loss_scale).to(p_grad.dtype.element_ty), mask=i_c < C)


def choose(classes: int) -> Config:
    """The smallest block that holds a row, or the largest there is."""
    return next((c for c in CONFIGS if classes <= c.blocks["b_C"]), CONFIGS[-1])


def launch(
    logits: Tensor, given: Tensor | None, config: Config | None = None
) -> tuple[Launch, tuple[Tensor, Tensor, Tensor]]:
    """The launch, and label, loss and scaled gradient that it fills."""
    n, classes = logits.shape
    label = torch.empty(n, dtype=torch.int64, device=logits.device)
    loss = torch.empty(n, dtype=torch.float32, device=logits.device)
    grad = torch.empty(n, classes, dtype=logits.dtype, device=logits.device)
    args = {
        "p_z": logits,
        "s_z_n": logits.stride(0),
        "s_z_c": logits.stride(1),
        "p_given": label if given is None else given.to(torch.int64).contiguous(),
        "p_label": label,
        "p_loss": loss,
        "p_grad": grad,
        "C": classes,
    }
    constants = {"MIN_LOSS": MIN_LOSS, "GIVEN": given is not None}
    return Launch(cross_entropy_kernel, n, args, constants, config or choose(classes)), (label, loss, grad)


def cross_entropy(logits: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """See the operator."""
    check(logits, label)
    working_dtype(logits)
    run, out = launch(logits, label)
    run.run()
    return out
