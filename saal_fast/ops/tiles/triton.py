"""Tiles of per-sample weight gradients, `M = G Aᵀ`, mapped in registers: the tile operations in Triton.

M [O, D] of a sample and group is formed a tile at a time, b_O × b_D, from blocks of T; nothing of its size is stored.

- The norm: a program owns one tile of W and walks over samples, so that W, which they share, is read once for many. Each
  writes one partial sum per sample; they are added afterwards, in one order whatever the launch.
- The effect: a program owns b_O outputs of b_S positions of one sample, and walks over D: it forms a tile of M, maps it, and
  multiplies it with a tile of X' while it is in registers. For more than b_S positions tiles are formed again.

Patches of a convolution are addressed in the kernel (`common/triton/blocks.py`); they exist in registers only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.elementwise import check_rule, native_map, working_dtype
from ..common.triton.blocks import contribution, direction, dot, load_columns, load_matrix, store_matrix
from ..common.triton.launch import BUSY_PROGRAMS, Config, Launch, Layer, LayerAt, cdiv
from ..common.window import Window, check_layer, output_shape
from . import outer

NORM_CONFIGS = (
    Config({"b_O": 16, "b_D": 64, "b_T": 16}, num_warps=4),
    Config({"b_O": 64, "b_D": 64, "b_T": 16}, num_warps=4),
    Config({"b_O": 64, "b_D": 64, "b_T": 32}, num_warps=4, bits=16),
)
APPLY_CONFIGS = (
    Config({"b_O": 16, "b_D": 32, "b_T": 16, "b_S": 16}, num_warps=4),
    Config({"b_O": 64, "b_D": 32, "b_T": 16, "b_S": 16}, num_warps=4),
    Config({"b_O": 64, "b_D": 16, "b_T": 16, "b_S": 64}, num_warps=8, bits=32),
    Config({"b_O": 64, "b_D": 32, "b_T": 16, "b_S": 128}, num_warps=8, bits=32),
    Config({"b_O": 64, "b_D": 32, "b_T": 32, "b_S": 64}, num_warps=4, bits=16),
    Config({"b_O": 64, "b_D": 32, "b_T": 32, "b_S": 128}, num_warps=8, bits=16),
)


@triton.jit
def tile_norm_kernel(
    p_a, s_a_n, s_a_c, s_a_h, s_a_w,  # A: rows, or images seen as patches
    p_g, s_g_n, s_g_o, s_g_t,  # G [N, GROUPS * O, T]
    p_w,  # W [GROUPS * O, D], contiguous; read for "adaptive" only
    p_partial,  # [N, GROUPS * tiles], fp32
    N, GROUPS, CHANNELS, O, D, T, SAMPLES, HEIGHT, WIDTH, ACROSS, q,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PATCHES: tl.constexpr, MAP: tl.constexpr, PRECISION: tl.constexpr,
    b_O: tl.constexpr, b_D: tl.constexpr, b_T: tl.constexpr,
):  # fmt: skip
    """One tile of M for SAMPLES samples, one after the other: the sum of its mapped elements.

    CHANNELS is that of one group; consecutive programs share a chunk of samples.
    """
    tiles_d = tl.cdiv(D, b_D)
    tiles = tl.cdiv(O, b_O) * tiles_d
    i_tile = tl.program_id(0) % (GROUPS * tiles)  # (group, tile)
    i_chunk = tl.program_id(0) // (GROUPS * tiles)
    i_group = (i_tile // tiles).to(tl.int64)
    i_o = i_tile % tiles // tiles_d * b_O + tl.arange(0, b_O)
    i_d = i_tile % tiles_d * b_D + tl.arange(0, b_D)
    if MAP == "adaptive":
        w = load_matrix(p_w + i_group * O * D, i_o, i_d, O, D, D, 1).to(tl.float32)
    else:
        w = 0.0
    i_n = (i_chunk * SAMPLES).to(tl.int64)
    p_a += i_n * s_a_n + i_group * CHANNELS * s_a_c
    p_g += i_n * s_g_n + i_group * O * s_g_o
    p_partial += i_n * (GROUPS * tiles) + i_tile
    for _ in range(tl.minimum(SAMPLES, N - i_chunk * SAMPLES)):
        m = tl.zeros([b_O, b_D], dtype=tl.float32)
        for start in range(0, T, b_T):
            i_t = start + tl.arange(0, b_T)
            g = load_matrix(p_g, i_o, i_t, O, T, s_g_o, s_g_t)
            a = load_columns(
                p_a, i_d, i_t, D, T, s_a_c, s_a_h, s_a_w, HEIGHT, WIDTH, ACROSS,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            m = dot(g, tl.trans(a), m, PRECISION)
        total = tl.sum(contribution(m, w, q, MAP))  # beyond the ends m is 0, and so is φ
        tl.store(p_partial, total)
        p_a += s_a_n
        p_g += s_g_n
        p_partial += GROUPS * tiles


@triton.jit
def tile_apply_kernel(
    p_a, s_a_n, s_a_c, s_a_h, s_a_w,  # A: rows, or images seen as patches
    p_x, s_x_n, s_x_c, s_x_h, s_x_w,  # X', likewise
    p_g, s_g_n, s_g_o, s_g_t,  # G [N, GROUPS * O, T]
    p_out, s_out_n, s_out_o, s_out_t,  # [N, GROUPS * O, S]
    p_w,  # W [GROUPS * O, D], contiguous; read for "adaptive" only
    p_scale,  # s [N]
    GROUPS, CHANNELS, O, D, T, S, HEIGHT, WIDTH, ACROSS, HEIGHT_X, WIDTH_X, ACROSS_X, q,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PATCHES: tl.constexpr, MAP: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
    b_O: tl.constexpr, b_D: tl.constexpr, b_T: tl.constexpr, b_S: tl.constexpr,
):  # fmt: skip
    """b_O outputs of b_S positions of one sample and group: `s · δ(M, W) X'`.

    With EXACT, mapped tiles are multiplied as fp32; else in the type of X'.
    """
    tiles_o, tiles_s = tl.cdiv(O, b_O), tl.cdiv(S, b_S)
    i_tile = tl.program_id(0) % (tiles_o * tiles_s)
    i_group = (tl.program_id(0) // (tiles_o * tiles_s) % GROUPS).to(tl.int64)
    i_n = (tl.program_id(0) // (tiles_o * tiles_s * GROUPS)).to(tl.int64)
    i_o = i_tile // tiles_s * b_O + tl.arange(0, b_O)
    i_s = i_tile % tiles_s * b_S + tl.arange(0, b_S)
    p_a += i_n * s_a_n + i_group * CHANNELS * s_a_c
    p_x += i_n * s_x_n + i_group * CHANNELS * s_x_c
    p_g += i_n * s_g_n + i_group * O * s_g_o
    p_out += i_n * s_out_n + i_group * O * s_out_o
    p_w += i_group * O * D
    out = tl.zeros([b_O, b_S], dtype=tl.float32)
    for start_d in range(0, D, b_D):
        i_d = start_d + tl.arange(0, b_D)
        m = tl.zeros([b_O, b_D], dtype=tl.float32)
        for start in range(0, T, b_T):
            i_t = start + tl.arange(0, b_T)
            g = load_matrix(p_g, i_o, i_t, O, T, s_g_o, s_g_t)
            a = load_columns(
                p_a, i_d, i_t, D, T, s_a_c, s_a_h, s_a_w, HEIGHT, WIDTH, ACROSS,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            m = dot(g, tl.trans(a), m, PRECISION)
        if MAP == "adaptive":
            w = load_matrix(p_w, i_o, i_d, O, D, D, 1).to(tl.float32)
        else:
            w = 0.0
        step = direction(m, w, q, MAP)
        x = load_columns(
            p_x, i_d, i_s, D, S, s_x_c, s_x_h, s_x_w, HEIGHT_X, WIDTH_X, ACROSS_X,
            KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
        )  # fmt: skip
        if EXACT:
            out = dot(step, x.to(tl.float32), out, PRECISION)
        else:
            out = dot(step.to(x.dtype), x, out, PRECISION)
    out *= tl.load(p_scale + i_n).to(tl.float32)
    store_matrix(p_out, out, i_o, i_s, O, S, s_out_o, s_out_t)


def choose_norm(outputs: int, positions: int, half: bool) -> Config:
    """A tile of 64 outputs, or of 16 where there are no more; longer blocks of T for 16-bit operands."""
    if outputs <= 16:
        return NORM_CONFIGS[0]
    return NORM_CONFIGS[2 if half and positions > 16 else 1]


def choose_apply(outputs: int, positions: int, moved: int, half: bool) -> Config:
    """Enough positions of X' that tiles of M are formed once, where 128 will do; else formed again for each 128."""
    if outputs <= 16 and moved <= 16:
        return APPLY_CONFIGS[0]
    if positions <= 16 and moved <= 16:
        return APPLY_CONFIGS[1]
    return APPLY_CONFIGS[(4 if half else 2) + (moved > 64)]


def norm_launch(
    a: Tensor, g: Tensor, weight: Tensor, window: Window, rule: str, q: float, config: Config | None = None
) -> tuple[Launch, Tensor]:
    """The launch, and the partial sums [N, parts] it fills; by shape without a tuning choice."""
    layer = Layer.of(window, a, g)
    config = config or choose_norm(layer.outputs, layer.g.positions, layer.dtype != torch.float32)
    n, tiles = layer.g.count, cdiv(layer.outputs, config.blocks["b_O"]) * cdiv(layer.a.depth, config.blocks["b_D"])
    tiles *= window.groups
    samples = max(1, min(16, n * tiles // BUSY_PROGRAMS))
    partial = torch.empty(n, tiles, dtype=torch.float32, device=a.device)
    args = {
        **layer.args(),
        "p_w": weight.contiguous(),
        "p_partial": partial,
        "N": n,
        "SAMPLES": samples,
        "q": float(q),
    }
    constants = {**layer.constants(), "MAP": native_map(rule, q)}
    return Launch(tile_norm_kernel, tiles * cdiv(n, samples), args, constants, config), partial


def step_launch(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    out: Tensor,
    window: Window,
    rule: str,
    q: float,
    config: Config | None = None,
) -> Launch:
    """The launch that fills `out` with what the step alone makes of x; by shape without a tuning choice."""
    layer = LayerAt.at(window, a, g, x, out)
    config = config or choose_apply(layer.outputs, layer.g.positions, layer.out.positions, layer.dtype != torch.float32)
    tiles = cdiv(layer.outputs, config.blocks["b_O"]) * cdiv(layer.out.positions, config.blocks["b_S"])
    args = {
        **layer.args(),
        "p_w": weight.contiguous(),
        "p_scale": scales.contiguous(),
        "q": float(q),
    }
    constants = {
        **layer.constants(),
        "MAP": native_map(rule, q),
        "EXACT": layer.dtype != torch.bfloat16,  # bf16 has fp32's range; in fp16 a small step would be lost
    }
    return Launch(tile_apply_kernel, layer.g.count * window.groups * tiles, args, constants, config)


def norm(a: Tensor, g: Tensor, weight: Tensor, window: list[int] | None, rule: str, q: float) -> Tensor:
    """See `tile_norm`."""
    layer, dtype = check_layer(window, a, g, weight), working_dtype(a, g, weight)
    check_rule(rule, q)
    if outer.is_outer(a):
        return outer.norm(a.to(dtype), g.to(dtype), weight.to(dtype), rule, q)
    if 0 in (*a.shape, *g.shape):
        return a.new_zeros(a.shape[0], dtype=torch.float32)
    launch, partial = norm_launch(a, g, weight, layer, rule, q)
    launch.run()
    return partial.sum(1)


def apply(
    a: Tensor, g: Tensor, x: Tensor, weight: Tensor, scales: Tensor, window: list[int] | None, rule: str, q: float
) -> Tensor:
    """See `tile_apply`."""
    layer, dtype = check_layer(window, a, g, weight, x, scales), working_dtype(a, g, weight, x, scales)
    check_rule(rule, q)
    if outer.is_outer(a):
        wide = (a.to(dtype), g.to(dtype), x.to(dtype), weight.to(dtype), scales.to(dtype))
        return outer.apply(*wide, rule, q).to(g.dtype)
    out = x.new_empty(output_shape(x, weight.shape[0], layer), dtype=g.dtype)
    if 0 in (*a.shape, *g.shape, *x.shape):  # no step
        return out.copy_(layer.layer(x, weight))
    step_launch(a, g, x, weight, scales, out, layer, rule, q).run()
    return out + layer.layer(x, weight)
