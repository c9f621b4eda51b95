"""What the kernels share: loading blocks of a layer's input, products, mapping blocks of its weight gradient, and log1p."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def load_columns(
    p_image, i_d, i_t, D, T,
    s_c, s_h, s_w, HEIGHT, WIDTH, ACROSS,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PATCHES: tl.constexpr,
):  # fmt: skip
    """A[i_d, i_t] of one sample and group, [len(i_d), len(i_t)]; zeros beyond its ends and in the padding.

    With PATCHES, A's rows are (channel, kernel row, kernel column) and its columns output positions, ACROSS a row: the
    patches of an image [C, HEIGHT, WIDTH]. Without, its rows are channels, and its columns lie `s_w` apart.
    """
    mask = (i_d < D)[:, None] & (i_t < T)[None, :]
    if PATCHES:
        i_c, i_k = i_d // (KH * KW), i_d % (KH * KW)
        i_h = (i_k // KW * DH)[:, None] + (i_t // ACROSS * SH - PH)[None, :]
        i_w = (i_k % KW * DW)[:, None] + (i_t % ACROSS * SW - PW)[None, :]
        mask = mask & (i_h >= 0) & (i_h < HEIGHT) & (i_w >= 0) & (i_w < WIDTH)
        offsets = (i_c.to(tl.int64) * s_c)[:, None] + i_h.to(tl.int64) * s_h + i_w.to(tl.int64) * s_w
    else:
        offsets = (i_d.to(tl.int64) * s_c)[:, None] + (i_t.to(tl.int64) * s_w)[None, :]
    return tl.load(p_image + offsets, mask=mask, other=0.0)


@triton.jit
def load_matrix(p_matrix, i_row, i_col, ROWS, COLS, s_row, s_col):
    """A block of a strided matrix, [len(i_row), len(i_col)]; zeros beyond its ends."""
    mask = (i_row < ROWS)[:, None] & (i_col < COLS)[None, :]
    offsets = (i_row.to(tl.int64) * s_row)[:, None] + (i_col.to(tl.int64) * s_col)[None, :]
    return tl.load(p_matrix + offsets, mask=mask, other=0.0)


@triton.jit
def store_matrix(p_matrix, value, i_row, i_col, ROWS, COLS, s_row, s_col):
    """Stores a block of a strided matrix."""
    mask = (i_row < ROWS)[:, None] & (i_col < COLS)[None, :]
    offsets = (i_row.to(tl.int64) * s_row)[:, None] + (i_col.to(tl.int64) * s_col)[None, :]
    tl.store(p_matrix + offsets, value.to(p_matrix.dtype.element_ty), mask=mask)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """The sum of acc and a b, in fp32.

    The interpreter would multiply the bits of bf16 as whole numbers; as fp32 they give the products that hardware gives.
    """
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc=acc, input_precision=PRECISION)


@triton.jit
def contribution(m, w, q, MAP: tl.constexpr):
    """φ(m, w): what a gradient m of weight w adds to the rule's total; 0 for m = 0."""
    if MAP == "square":
        return m * m
    elif MAP == "adaptive":
        return w * m * (w * m)
    elif MAP == "absolute":
        return tl.abs(m)
    else:  # "power": |m|^q
        return tl.exp2(q * tl.log2(tl.abs(m)))  # log2(0) = -inf, exp2(-inf) = 0: q >= 1


@triton.jit
def direction(m, w, q, MAP: tl.constexpr):
    """δ(m, w): where a gradient m pushes weight w; 0 for m = 0."""
    if MAP == "square":
        return m
    elif MAP == "adaptive":
        return w * w * m
    else:
        sign = tl.where(m > 0, 1.0, tl.where(m < 0, -1.0, m))  # 0 stays 0, NaN stays NaN
        if MAP == "absolute":
            return sign
        else:  # "power": |m|^(q-1), q > 1
            return sign * tl.exp2((q - 1) * tl.log2(tl.abs(m)))


@triton.jit
def log1p(x):
    """log(1 + x) for x >= 0 to fp32's last digits, also where 1 + x rounds to 1.

    For x <= 1 it is 2 artanh(x / (2 + x)), whose series in r² <= 1/9 is cut after r¹⁷ / 17: off by less than 1e-9.
    """
    small = tl.minimum(x, 1.0)
    r = small / (2.0 + small)
    r2 = r * r
    series = 1.0 / 17
    series = series * r2 + 1.0 / 15
    series = series * r2 + 1.0 / 13
    series = series * r2 + 1.0 / 11
    series = series * r2 + 1.0 / 9
    series = series * r2 + 1.0 / 7
    series = series * r2 + 1.0 / 5
    series = series * r2 + 1.0 / 3
    series = series * r2 + 1.0
    return tl.where(x > 1.0, tl.log(1.0 + x), tl.where(x == x, 2.0 * r * series, x))  # NaN stays NaN
