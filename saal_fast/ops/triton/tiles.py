"""Tiles of per-sample weight gradients, `M = G Aᵀ`, mapped in registers: the Triton twins of `tiles.py` and `conv_tiles.py`.

M [O, D] of a sample and group is formed a tile at a time, b_O × b_D, from blocks of T; nothing of its size is stored.

- The norm: a program owns one tile of W and walks over samples, so that W, which they share, is read once for many. Each
  writes one partial sum per sample; they are added afterwards, in one order whatever the launch.
- The effect: a program owns b_O outputs of b_S positions of one sample, and walks over D: it forms a tile of M, maps it, and
  multiplies it with a tile of X' while it is in registers. For more than b_S positions tiles are formed again.

Patches of a convolution are addressed in the kernel (`blocks.load_columns`); they exist in registers only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blocks import contribution, direction, dot, load_columns, load_matrix, store_matrix
from .launch import ENOUGH, LINEAR, Columns, Config, Launch, Rows, Window, cdiv, precision, shared_dtype

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
    a: Tensor, g: Tensor, weight: Tensor, rule_map: str, q: float, window: Window, config: Config | None = None
) -> tuple[Launch, Tensor]:
    """The launch, and the partial sums [N, parts] it fills.

    Args:
        a: [N, T, D] or [N, C, H, W].
        g: [N, T, O] or [N, O, H', W'].
        weight: [O, ...], of any floating-point type.
        rule_map: "square", "adaptive", "absolute" or "power".
        q: the exponent of "power".
        window: the convolution's, or the default.
        config: a tuning choice, by shape if None.
    """
    a, g = shared_dtype(a, g)
    columns, rows = Columns.of(a, window), Rows.of(g)
    outputs = rows.channels // window.groups
    config = config or choose_norm(outputs, rows.positions, a.dtype != torch.float32)
    tiles = window.groups * cdiv(outputs, config.blocks["b_O"]) * cdiv(columns.depth, config.blocks["b_D"])
    samples = max(1, min(16, rows.count * tiles // ENOUGH))
    partial = torch.empty(rows.count, tiles, dtype=torch.float32, device=a.device)
    channels, height, width = columns.shape
    args = {
        **columns.args("a"),
        **rows.args("g", "o", "t"),
        "p_w": weight.contiguous(),
        "p_partial": partial,
        "N": rows.count,
        "GROUPS": window.groups,
        "CHANNELS": channels // window.groups,
        "O": outputs,
        "D": columns.depth,
        "T": rows.positions,
        "SAMPLES": samples,
        "HEIGHT": height,
        "WIDTH": width,
        "ACROSS": rows.across,
        "q": float(q),
    }
    constants = {**window.constants(columns.patches), "MAP": rule_map, "PRECISION": precision(a.dtype)}
    return Launch(tile_norm_kernel, tiles * cdiv(rows.count, samples), args, constants, config), partial


def apply_launch(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    out: Tensor,
    rule_map: str,
    q: float,
    window: Window,
    config: Config | None = None,
) -> Launch:
    """The launch that fills `out` ([N, S, O] or [N, O, *size]); arguments as in `norm_launch`, x another input."""
    a, g, x = shared_dtype(a, g, x)
    columns, moved, rows, pushed = Columns.of(a, window), Columns.of(x, window), Rows.of(g), Rows.of(out)
    outputs = rows.channels // window.groups
    config = config or choose_apply(outputs, rows.positions, pushed.positions, a.dtype != torch.float32)
    tiles = cdiv(outputs, config.blocks["b_O"]) * cdiv(pushed.positions, config.blocks["b_S"])
    channels, height, width = columns.shape
    args = {
        **columns.args("a"),
        **moved.args("x"),
        **rows.args("g", "o", "t"),
        **pushed.args("out", "o", "t"),
        "p_w": weight.contiguous(),
        "p_scale": scales.contiguous(),
        "GROUPS": window.groups,
        "CHANNELS": channels // window.groups,
        "O": outputs,
        "D": columns.depth,
        "T": rows.positions,
        "S": pushed.positions,
        "HEIGHT": height,
        "WIDTH": width,
        "ACROSS": rows.across,
        "HEIGHT_X": moved.shape[1],
        "WIDTH_X": moved.shape[2],
        "ACROSS_X": pushed.across,
        "q": float(q),
    }
    constants = {
        **window.constants(columns.patches or moved.patches),
        "MAP": rule_map,
        "PRECISION": precision(a.dtype),
        "EXACT": x.dtype != torch.bfloat16,  # bf16 has fp32's range; in fp16 a small step would be lost
    }
    return Launch(tile_apply_kernel, rows.count * window.groups * tiles, args, constants, config)


def norm(a: Tensor, g: Tensor, weight: Tensor, rule_map: str, q: float, window: Window = LINEAR) -> Tensor:
    """`Σ φ(G Aᵀ, W)` of each sample, fp32 [N]; see `norm_launch`."""
    if 0 in a.shape or 0 in g.shape:
        return torch.zeros(a.shape[0], dtype=torch.float32, device=a.device)
    launch, partial = norm_launch(a, g, weight, rule_map, q, window)
    launch.run()
    return partial.sum(1)


def apply(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    out: Tensor,
    rule_map: str,
    q: float,
    window: Window = LINEAR,
) -> Tensor:
    """`out`, filled with what each sample's step adds to the layer's output at x; see `apply_launch`."""
    if 0 in a.shape or 0 in g.shape or 0 in x.shape:
        return out.zero_()
    apply_launch(a, g, x, weight, scales, out, rule_map, q, window).run()
    return out
