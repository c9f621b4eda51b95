"""Layer norm with a weight and a bias of a sample's own against autograd, by every kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drawn import LAYOUTS, laid_out
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library
from torch.func import vmap

from saal_fast import _native
from saal_fast.ops import norms
from saal_fast.ops.norms import cpu, reference

FLOAT64 = {"rtol": 1e-11, "atol": 1e-11}
TOLERANCE = {
    torch.float64: FLOAT64,
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
    torch.float16: {"rtol": 4e-3, "atol": 4e-3},
}
several = settings(max_examples=100, deadline=None)
kernels = st.sampled_from([cpu, reference, norms])
types = st.sampled_from([torch.float64, torch.float32])


layouts = st.sampled_from(LAYOUTS)


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def hold(got, want):
    """To the tolerance of got's type."""
    torch.testing.assert_close(got.to(want.dtype), want, **TOLERANCE[got.dtype])


@several
@given(
    n=st.integers(0, 4),
    rows=st.integers(0, 9),
    width=st.integers(1, 70),
    layout=st.tuples(layouts, layouts),
    of=kernels,
    dtype=types,
)
def test_layer_norm(n, rows, width, layout, of, dtype):
    x, g, weight, bias = (
        drawn(n, rows, width),
        drawn(n, rows, width, seed=1),
        drawn(n, width, seed=2),
        drawn(n, width, seed=3),
    )
    given = [laid_out(t.to(dtype), lies) for t, lies in zip((x, g), layout, strict=True)]
    y, mean, rstd = of.layer_norm(given[0], weight.to(dtype), bias.to(dtype), 1e-3)
    grads = of.layer_norm_back(*given, weight.to(dtype), mean, rstd)
    for i in range(n):
        at = [t[i].clone().requires_grad_() for t in (x, weight, bias)]
        out = F.layer_norm(at[0], (width,), at[1], at[2], 1e-3)
        hold(y[i], out)
        for got, want in zip(grads, torch.autograd.grad(out, at, g[i]), strict=True):
            hold(got[i], want) if dtype != torch.float64 else torch.testing.assert_close(got[i], want, rtol=1e-9, atol=1e-9)


def test_in_float32_as_near_as_torch():
    x, g = drawn(3, 40, 96), drawn(3, 40, 96, seed=1)
    weight, bias = drawn(3, 96, seed=2), drawn(3, 96, seed=3)
    exact = norms.layer_norm(x, weight, bias, 1e-5)
    single = norms.layer_norm(*(t.float() for t in (x, weight, bias)), 1e-5)
    torch.testing.assert_close(single[0].double(), exact[0], rtol=1e-5, atol=1e-5)
    want = norms.layer_norm_back(x, g, weight, *exact[1:])
    got = norms.layer_norm_back(*(t.float() for t in (x, g, weight, *exact[1:])))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_the_compiled_kernels_are_what_runs(monkeypatch):
    for name in ("layer_norm", "layer_norm_back"):
        monkeypatch.setattr(reference, name, None)
    x = drawn(2, 3, 4)
    y, mean, rstd = norms.layer_norm(x, drawn(2, 4), drawn(2, 4), 1e-5)
    norms.layer_norm_back(x, y, drawn(2, 4), mean, rstd)


@pytest.mark.parametrize("isa", _native.core().usable_isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_and_any_threads(isa, dtype):
    core = _native.core()
    x, g, scale, bias = (drawn(5, 37, 70, dtype=dtype, seed=i) for i in range(4))
    found = []
    for threads in (1, 2, 3):
        made = [
            torch.empty_like(x),
            *torch.empty(2, 5, 37, dtype=dtype),
            torch.empty_like(x),
            torch.empty(5, 2, 70, dtype=dtype),
        ]
        arrays = [t.numpy() for t in made]
        by, plus = scale[:, 0].contiguous().numpy(), bias[:, 1].contiguous().numpy()
        core.layer_norm(x.numpy(), by, plus, 1e-5, *arrays[:3], threads, isa)
        core.layer_norm_back(x.numpy(), g.numpy(), by, *arrays[1:], threads, isa)
        found.append(made)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
    want = F.layer_norm(x, (70,), eps=1e-5) * scale[:, :1] + bias[:, 1:2]
    torch.testing.assert_close(found[0][0], want, **TOLERANCE[dtype])
    torch.testing.assert_close(found[0][4][:, 1], g.sum(1), **TOLERANCE[dtype])


def test_vmap_equals_a_loop():
    x, g, weight = drawn(3, 1, 4, 6), drawn(3, 1, 4, 6, seed=1), drawn(6, seed=2)[None]
    made = vmap(lambda x: norms.layer_norm(x, weight, weight, 1e-5))(x)
    for i in range(3):
        for a, b in zip(made, norms.layer_norm(x[i], weight, weight, 1e-5), strict=True):
            torch.testing.assert_close(a[i], b)
    back = vmap(lambda x, g, y, mean, rstd: norms.layer_norm_back(x, g, weight, mean, rstd))(x, g, *made)
    for i in range(3):
        for a, b in zip(back, norms.layer_norm_back(x[i], g[i], weight, *(t[i] for t in made[1:])), strict=True):
            torch.testing.assert_close(a[i], b)


def test_opcheck():
    x, weight = drawn(2, 3, 4), drawn(2, 4)
    _, mean, rstd = norms.layer_norm(x, weight, weight, 1e-5)
    library.opcheck(norms.layer_norm, (x, weight, weight, 1e-5))
    library.opcheck(norms.layer_norm_back, (x, x, weight, mean, rstd))


def test_shapes_that_do_not_fit_are_told():
    x = drawn(2, 3, 4)
    with pytest.raises(ValueError, match=r"expected rows \[N, T, D\].*got \[2, 3, 4\]"):
        norms.layer_norm(x, drawn(2, 3), drawn(2, 4), 1e-5)
    with pytest.raises(ValueError, match="contiguous numbers"):
        _native.core().layer_norm(*(t.numpy() for t in (x, drawn(2, 3), drawn(2, 4))), 1e-5, *(t.numpy() for t in (x, x, x)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_takes_the_reference(dtype):
    x, weight, bias = drawn(2, 3, 40), drawn(2, 40, seed=1), drawn(2, 40, seed=2)
    y = norms.layer_norm(*(t.to(dtype) for t in (x, weight, bias)), 1e-5)[0]
    assert y.dtype == dtype
    torch.testing.assert_close(y.double() / 4, reference.layer_norm(x, weight, bias, 1e-5)[0] / 4, **TOLERANCE[dtype])


def test_results_share_no_memory_and_inputs_stay():
    x, g, weight = drawn(2, 3, 4), drawn(2, 3, 4, seed=1), drawn(2, 4)
    before = [t.clone() for t in (x, g, weight)]
    y, mean, rstd = norms.layer_norm(x, weight, weight, 1e-5)
    made = norms.layer_norm_back(x, g, weight, mean, rstd)
    assert len({t.untyped_storage().data_ptr() for t in (x, g, weight, y, mean, rstd, *made)}) == 9
    assert all(torch.equal(a, b) for a, b in zip((x, g, weight), before, strict=True))
