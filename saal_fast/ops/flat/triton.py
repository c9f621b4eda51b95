"""Norms and steps of flat gradients in Triton: a row a sample, all parameters end to end, one launch."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.elementwise import native_map
from ..common.triton.blocks import contribution, direction
from ..common.triton.launch import Config, Launch, cdiv
from .reference import check

CONFIGS = (Config({"b_P": 1024}, num_warps=4), Config({"b_P": 4096}, num_warps=8))


@triton.jit
def flat_norm_kernel(
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
def flat_step_kernel(
    p_g, s_g_n,  # gradients [N, P], a row without gaps
    p_w,  # weights [P]
    p_scale,  # s [N]
    p_out,  # [N, P], contiguous
    P, q, MAP: tl.constexpr, b_P: tl.constexpr,
):  # fmt: skip
    """A block of one sample's own parameters, `w + s · δ(g, w)`."""
    blocks = tl.cdiv(P, b_P)
    i_n = (tl.program_id(0) // blocks).to(tl.int64)
    i_p = (tl.program_id(0) % blocks).to(tl.int64) * b_P + tl.arange(0, b_P)
    m = tl.load(p_g + i_n * s_g_n + i_p, mask=i_p < P, other=0.0).to(tl.float32)
    w = tl.load(p_w + i_p, mask=i_p < P, other=0.0).to(tl.float32)
    stepped = w + tl.load(p_scale + i_n).to(tl.float32) * direction(m, w, q, MAP)
    tl.store(p_out + i_n * P + i_p, stepped.to(p_out.dtype.element_ty), mask=i_p < P)


def choose(parameters: int) -> Config:
    """Longer blocks for longer rows."""
    return CONFIGS[0 if parameters <= 16 * 1024 else 1]


def norm_launch(g: Tensor, weight: Tensor, rule: str, q: float, config: Config | None = None) -> tuple[Launch, Tensor]:
    """The launch, and the partial sums [N, blocks] it fills."""
    args, constants, config, programs = _shared(g, weight, rule, q, config)
    partial = torch.empty(len(g), programs // max(len(g), 1), dtype=torch.float32, device=g.device)
    return Launch(flat_norm_kernel, programs, {**args, "p_partial": partial}, constants, config), partial


def step_launch(
    g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float, config: Config | None = None
) -> tuple[Launch, Tensor]:
    """The launch, and each sample's own parameters [N, P] that it fills."""
    args, constants, config, programs = _shared(g, weight, rule, q, config)
    out = torch.empty(g.shape, dtype=weight.dtype, device=g.device)
    args = {**args, "p_scale": scales.contiguous(), "p_out": out}
    return Launch(flat_step_kernel, programs, args, constants, config), out


def _shared(
    g: Tensor, weight: Tensor, rule: str, q: float, config: Config | None
) -> tuple[dict[str, Any], dict[str, Any], Config, int]:
    """What both launches take: arguments, constexprs, the tuning choice and how many programs run."""
    n, parameters = g.shape
    config = config or choose(parameters)
    g = g if g.stride(1) == 1 else g.contiguous()
    args = {"p_g": g, "s_g_n": g.stride(0), "p_w": weight.contiguous(), "P": parameters, "q": float(q)}
    return args, {"MAP": native_map(rule, q)}, config, n * cdiv(parameters, config.blocks["b_P"])


def norm(g: Tensor, weight: Tensor, rule: str, q: float) -> Tensor:
    """See `flat_norm`."""
    check(g, weight, rule, q)
    launch, partial = norm_launch(g, weight, rule, q)
    launch.run()
    return partial.sum(1)


def step(g: Tensor, weight: Tensor, scales: Tensor, rule: str, q: float) -> Tensor:
    """See `flat_step`."""
    check(g, weight, rule, q, scales)
    launch, out = step_launch(g, weight, scales, rule, q)
    launch.run()
    return out
