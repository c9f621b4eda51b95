"""Norms and steps of directly differentiated parameters, all of them in one launch: the Triton twin of `direct.py`.

Gradients come as one matrix [N, P], a row a sample and all parameters end to end (see `ops/direct.py` for why).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blocks import contribution, direction
from .launch import Config, Launch, cdiv

CONFIGS = (Config({"b_P": 1024}, num_warps=4), Config({"b_P": 4096}, num_warps=8))


@triton.jit
def direct_norm_kernel(
    p_g, s_g_n,  # gradients [N, P], a row without gaps
    p_w,  # weights [P]
    p_partial,  # [N, blocks], fp32
    P, q, MAP: tl.constexpr, b_P: tl.constexpr,
):  # fmt: skip
    """A block of one sample's gradient: the sum of its mapped elements."""
    blocks = tl.cdiv(P, b_P)
    i_n = (tl.program_id(0) // blocks).to(tl.int64)
    i_p = (tl.program_id(0) % blocks).to(tl.int64) * b_P + tl.arange(0, b_P)
    m = tl.load(p_g + i_n * s_g_n + i_p, mask=i_p < P, other=0.0).to(tl.float32)
    w = tl.load(p_w + i_p, mask=i_p < P, other=0.0).to(tl.float32) if MAP == "adaptive" else 0.0
    tl.store(p_partial + tl.program_id(0).to(tl.int64), tl.sum(contribution(m, w, q, MAP)))


@triton.jit
def direct_move_kernel(
    p_g, s_g_n,  # gradients [N, P], a row without gaps
    p_w,  # weights [P]
    p_scale,  # s [N]
    p_out,  # [N, P], contiguous
    P, q, MAP: tl.constexpr, b_P: tl.constexpr,
):  # fmt: skip
    """A block of one sample's moved parameters, `w + s · δ(g, w)`."""
    blocks = tl.cdiv(P, b_P)
    i_n = (tl.program_id(0) // blocks).to(tl.int64)
    i_p = (tl.program_id(0) % blocks).to(tl.int64) * b_P + tl.arange(0, b_P)
    m = tl.load(p_g + i_n * s_g_n + i_p, mask=i_p < P, other=0.0).to(tl.float32)
    w = tl.load(p_w + i_p, mask=i_p < P, other=0.0).to(tl.float32)
    moved = w + tl.load(p_scale + i_n).to(tl.float32) * direction(m, w, q, MAP)
    tl.store(p_out + i_n * P + i_p, moved.to(p_out.dtype.element_ty), mask=i_p < P)


def choose(parameters: int) -> Config:
    """Longer blocks for longer rows."""
    return CONFIGS[0 if parameters <= 16 * 1024 else 1]


def norm_launch(g: Tensor, weight: Tensor, rule_map: str, q: float, config: Config | None = None) -> tuple[Launch, Tensor]:
    """The launch, and the partial sums [N, blocks] it fills."""
    n, parameters = g.shape
    config = config or choose(parameters)
    g = g if g.stride(1) == 1 else g.contiguous()
    blocks = cdiv(parameters, config.blocks["b_P"])
    partial = torch.empty(n, blocks, dtype=torch.float32, device=g.device)
    args = {
        "p_g": g,
        "s_g_n": g.stride(0),
        "p_w": weight.contiguous(),
        "p_partial": partial,
        "P": parameters,
        "q": float(q),
    }
    return Launch(direct_norm_kernel, n * blocks, args, {"MAP": rule_map}, config), partial


def move_launch(
    g: Tensor, weight: Tensor, scales: Tensor, rule_map: str, q: float, config: Config | None = None
) -> tuple[Launch, Tensor]:
    """The launch, and the moved parameters [N, P] it fills."""
    n, parameters = g.shape
    config = config or choose(parameters)
    g = g if g.stride(1) == 1 else g.contiguous()
    out = torch.empty(n, parameters, dtype=weight.dtype, device=g.device)
    args = {
        "p_g": g,
        "s_g_n": g.stride(0),
        "p_w": weight.contiguous(),
        "p_scale": scales.contiguous(),
        "p_out": out,
        "P": parameters,
        "q": float(q),
    }
    programs = n * cdiv(parameters, config.blocks["b_P"])
    return Launch(direct_move_kernel, programs, args, {"MAP": rule_map}, config), out


def norm(g: Tensor, weight: Tensor, rule_map: str, q: float) -> Tensor:
    """`Σ φ(g, w)` of each sample, fp32 [N]."""
    launch, partial = norm_launch(g, weight, rule_map, q)
    launch.run()
    return partial.sum(1)


def move(g: Tensor, weight: Tensor, scales: Tensor, rule_map: str, q: float) -> Tensor:
    """`w + s · δ(g, w)` of each sample, [N, P]."""
    launch, out = move_launch(g, weight, scales, rule_map, q)
    launch.run()
    return out
