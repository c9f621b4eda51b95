"""Gram matrices of factored gradients, a block at a time: the ghost operations in Triton.

- The norm `Σ ⟨AᵀA, GᵀG⟩`: a program forms one block b_T × b_T of both Gram matrices and adds up their product; blocks above
  the diagonal are left out, as both are symmetric, and those below counted twice.
- The effect `G (AᵀX')` is attention without softmax (queries X', keys A, values G): a program owns b_S positions of X' and
  walks over blocks of T. The block `X'ᵀA` stays in registers while it is multiplied with all of G's rows, so that no product
  is formed twice and no T × S matrix is stored. Where T exceeds b_T the program adds to what it has written itself. Where
  there are few programs, G's rows are divided among several, each of which forms the block.

A bias is a row of ones in A and X': it adds 1 to every product.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.elementwise import working_dtype
from ..common.triton.blocks import dot, load_columns, load_matrix, store_matrix
from ..common.triton.launch import BUSY_PROGRAMS, Config, Launch, Layer, LayerAt, LayerOutput, cdiv
from ..common.window import Window, check_layer
from .reference import room_for_output

NORM_CONFIGS = (
    Config({"b_T": 16, "b_K": 64}, num_warps=2),
    Config({"b_T": 32, "b_K": 32}, num_warps=4, bits=32),
    Config({"b_T": 64, "b_K": 32}, num_warps=8, bits=16),
)
APPLY_CONFIGS = (
    Config({"b_S": 16, "b_T": 16, "b_D": 32, "b_O": 64}, num_warps=4),
    Config({"b_S": 32, "b_T": 32, "b_D": 32, "b_O": 32}, num_warps=4, bits=32),
    Config({"b_S": 64, "b_T": 64, "b_D": 32, "b_O": 64}, num_warps=4, bits=16),
    Config({"b_S": 64, "b_T": 128, "b_D": 32, "b_O": 32}, num_warps=8, bits=16),
)


@triton.jit
def ghost_norm_kernel(
    p_a, s_a_n, s_a_c, s_a_h, s_a_w,  # A: rows, or images seen as patches
    p_g, s_g_n, s_g_o, s_g_t,  # G [N, GROUPS * O, T]
    p_partial,  # [N, GROUPS * blocks * blocks], fp32; zeros above the diagonal
    GROUPS, CHANNELS, O, D, T, HEIGHT, WIDTH, ACROSS,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PATCHES: tl.constexpr, BIAS: tl.constexpr, PRECISION: tl.constexpr,
    b_T: tl.constexpr, b_K: tl.constexpr,
):  # fmt: skip
    """One block of `⟨AᵀA, GᵀG⟩` of one sample and group."""
    blocks = tl.cdiv(T, b_T)
    i_row = tl.program_id(0) // blocks % blocks
    i_col = tl.program_id(0) % blocks
    i_group = (tl.program_id(0) // (blocks * blocks) % GROUPS).to(tl.int64)
    i_n = (tl.program_id(0) // (blocks * blocks * GROUPS)).to(tl.int64)
    i_t = i_row * b_T + tl.arange(0, b_T)
    i_u = i_col * b_T + tl.arange(0, b_T)
    p_a += i_n * s_a_n + i_group * CHANNELS * s_a_c
    p_g += i_n * s_g_n + i_group * O * s_g_o
    if i_col <= i_row:
        inputs = tl.zeros([b_T, b_T], dtype=tl.float32)
        for start in range(0, D, b_K):
            i_d = start + tl.arange(0, b_K)
            a_t = load_columns(
                p_a, i_d, i_t, D, T, s_a_c, s_a_h, s_a_w, HEIGHT, WIDTH, ACROSS,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            a_u = load_columns(
                p_a, i_d, i_u, D, T, s_a_c, s_a_h, s_a_w, HEIGHT, WIDTH, ACROSS,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            inputs = dot(tl.trans(a_t), a_u, inputs, PRECISION)
        if BIAS:
            inputs += 1.0  # also beyond the ends, where the other factor is 0
        outputs = tl.zeros([b_T, b_T], dtype=tl.float32)
        for start in range(0, O, b_K):
            i_o = start + tl.arange(0, b_K)
            g_t = load_matrix(p_g, i_o, i_t, O, T, s_g_o, s_g_t)
            g_u = load_matrix(p_g, i_o, i_u, O, T, s_g_o, s_g_t)
            outputs = dot(tl.trans(g_t), g_u, outputs, PRECISION)
        total = tl.sum(inputs * outputs)
        tl.store(p_partial + tl.program_id(0).to(tl.int64), tl.where(i_col < i_row, 2.0 * total, total))


@triton.jit
def ghost_apply_kernel(
    p_a, s_a_n, s_a_c, s_a_h, s_a_w,  # A: rows, or images seen as patches
    p_x, s_x_n, s_x_c, s_x_h, s_x_w,  # X', likewise
    p_g, s_g_n, s_g_o, s_g_t,  # G [N, GROUPS * O, T]
    p_base, s_base_n, s_base_o, s_base_t,  # what is added to, [N, GROUPS * O, S]
    p_out, s_out_n, s_out_o, s_out_t,  # [N, GROUPS * O, S]
    p_scale,  # s [N]
    GROUPS, CHANNELS, O, D, T, S, STRIPS, HEIGHT, WIDTH, ACROSS, HEIGHT_X, WIDTH_X, ACROSS_X,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PATCHES: tl.constexpr, BIAS: tl.constexpr, BASE: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
    b_S: tl.constexpr, b_T: tl.constexpr, b_D: tl.constexpr, b_O: tl.constexpr,
):  # fmt: skip
    """b_S positions of one sample and group, and every STRIPS-th block of outputs: `base + s · G (AᵀX' + 1)`.

    With EXACT, `AᵀX'` enters the second product as fp32; else in the type of G.
    """
    tiles_s = tl.cdiv(S, b_S)
    i_strip = tl.program_id(0) % STRIPS
    i_s = tl.program_id(0) // STRIPS % tiles_s * b_S + tl.arange(0, b_S)
    i_group = (tl.program_id(0) // (STRIPS * tiles_s) % GROUPS).to(tl.int64)
    i_n = (tl.program_id(0) // (STRIPS * tiles_s * GROUPS)).to(tl.int64)
    p_a += i_n * s_a_n + i_group * CHANNELS * s_a_c
    p_x += i_n * s_x_n + i_group * CHANNELS * s_x_c
    p_g += i_n * s_g_n + i_group * O * s_g_o
    p_base += i_n * s_base_n + i_group * O * s_base_o
    p_out += i_n * s_out_n + i_group * O * s_out_o
    scale = tl.load(p_scale + i_n).to(tl.float32)
    for start_t in range(0, T, b_T):
        i_t = start_t + tl.arange(0, b_T)
        products = tl.zeros([b_S, b_T], dtype=tl.float32)
        for start_d in range(0, D, b_D):
            i_d = start_d + tl.arange(0, b_D)
            x = load_columns(
                p_x, i_d, i_s, D, S, s_x_c, s_x_h, s_x_w, HEIGHT_X, WIDTH_X, ACROSS_X,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            a = load_columns(
                p_a, i_d, i_t, D, T, s_a_c, s_a_h, s_a_w, HEIGHT, WIDTH, ACROSS,
                KH, KW, SH, SW, PH, PW, DH, DW, PATCHES,
            )  # fmt: skip
            products = dot(tl.trans(x), a, products, PRECISION)
        if BIAS:
            products += 1.0
        products *= scale
        if start_t > 0:
            tl.debug_barrier()  # what other threads of this program have written is read next
        for start_o in range(i_strip * b_O, O, STRIPS * b_O):
            i_o = start_o + tl.arange(0, b_O)
            g = load_matrix(p_g, i_o, i_t, O, T, s_g_o, s_g_t)
            push = tl.zeros([b_S, b_O], dtype=tl.float32)
            if start_t > 0:
                push += load_matrix(p_out, i_s, i_o, S, O, s_out_t, s_out_o).to(tl.float32)
            elif BASE:
                push += load_matrix(p_base, i_s, i_o, S, O, s_base_t, s_base_o).to(tl.float32)
            if EXACT:
                push = dot(products, tl.trans(g.to(tl.float32)), push, PRECISION)
            else:
                push = dot(products.to(g.dtype), tl.trans(g), push, PRECISION)
            store_matrix(p_out, push, i_s, i_o, S, O, s_out_t, s_out_o)


def choose_norm(positions: int, half: bool) -> Config:
    """Blocks as long as T, up to 32; up to 64 for 16-bit operands."""
    if positions <= 16:
        return NORM_CONFIGS[0]
    return NORM_CONFIGS[2 if half else 1]


def choose_apply(positions: int, moved: int, half: bool) -> Config:
    """For 16-bit operands blocks as long as T, up to 128: for most layers worth factoring one block holds all of T."""
    if positions <= 16 and moved <= 16:
        return APPLY_CONFIGS[0]
    if not half:
        return APPLY_CONFIGS[1]
    return APPLY_CONFIGS[2 if positions <= 64 else 3]


def norm_launch(a: Tensor, g: Tensor, window: Window, bias: bool, config: Config | None = None) -> tuple[Launch, Tensor]:
    """The launch, and the partial sums [N, parts] it fills; by shape without a tuning choice."""
    layer = Layer.of(window, a, g)
    config = config or choose_norm(layer.g.positions, layer.dtype != torch.float32)
    parts = window.groups * cdiv(layer.g.positions, config.blocks["b_T"]) ** 2
    partial = torch.zeros(layer.g.count, parts, dtype=torch.float32, device=a.device)
    constants = {**layer.constants(), "BIAS": bias}
    args = {**layer.args(), "p_partial": partial}
    return Launch(ghost_norm_kernel, layer.g.count * parts, args, constants, config), partial


def apply_launch(
    a: Tensor,
    g: Tensor,
    x: Tensor,
    scales: Tensor,
    base: Tensor | None,
    out: Tensor,
    window: Window,
    bias: bool,
    config: Config | None = None,
) -> Launch:
    """The launch that fills `out` with base + what each sample's step adds; by shape without a tuning choice.

    For more than b_T positions `out` has to be fp32, since the sum over blocks is kept there.
    """
    layer = LayerAt.at(window, a, g, x, out)
    under = layer.out if base is None else LayerOutput.of(base)
    config = config or choose_apply(layer.g.positions, layer.out.positions, layer.dtype != torch.float32)
    programs = layer.g.count * window.groups * cdiv(layer.out.positions, config.blocks["b_S"])
    strips = max(1, min(cdiv(layer.outputs, config.blocks["b_O"]), BUSY_PROGRAMS // max(programs, 1)))
    args = {**layer.args(), **under.args("base"), "p_scale": scales.contiguous(), "STRIPS": strips}
    constants = {
        **layer.constants(),
        "BIAS": bias,
        "BASE": base is not None,
        "EXACT": layer.dtype != torch.bfloat16,  # bf16 has fp32's range; in fp16 a long product would overflow
    }
    return Launch(ghost_apply_kernel, programs * strips, args, constants, config)


def norm(a: Tensor, g: Tensor, window: list[int] | None, bias: bool) -> Tensor:
    """See `ghost_norm`."""
    layer = check_layer(window, a, g)
    working_dtype(a, g)
    if 0 in g.shape:
        return g.new_zeros(g.shape[0], dtype=torch.float32)
    launch, partial = norm_launch(a, g, layer, bias)
    launch.run()
    return partial.sum(1)


def apply(
    a: Tensor, g: Tensor, x: Tensor, scales: Tensor, base: Tensor | None, window: list[int] | None, bias: bool
) -> Tensor:
    """See `ghost_apply`."""
    layer = check_layer(window, a, g, x=x, scales=scales, base=base)
    working_dtype(a, g, x, scales)
    out = room_for_output(g, x, base, layer)
    if 0 in g.shape or 0 in out.shape:
        return out.zero_() if base is None else out.copy_(base)
    launch = apply_launch(a, g, x, scales, base, out, layer, bias)
    if out.dtype == torch.float32 or launch.args["T"] <= launch.config.blocks["b_T"]:
        launch.run()
        return out
    sums = torch.empty_like(out, dtype=torch.float32)
    apply_launch(a, g, x, scales, base, sums, layer, bias).run()
    return out.copy_(sums)
