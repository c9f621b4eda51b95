"""Products with a parameter by `matmul`, `einsum`, `tensordot` and `bilinear`: what their geometries promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_promises import CLOSE, FLOAT64, check_promises

from saal_fast.engines.layers import VmapReplacements
from saal_fast.engines.layers.bilinear import read_bilinear
from saal_fast.engines.layers.product import einsum, matmul, tensordot

EQUATIONS = (
    *("btd,do->bto", "btd,od->bto", "dz,btd->btz", "...d,od->...o", "...d,do", "btd,dhk->bhtk", "bhtk,hkd->btd"),
    *("ted,edo->teo", "ebtd,eod->ebto", "btd,d->bt", "d,btd->bt", "btd,do->bo", "bst,ts->bs", "te,et->e", "d,o->do"),
    *("btd,bto->do", "a,a->a"),
)
MATMULS = (
    *(("nd", "do"), ("btd", "do"), ("on", "bnd"), ("d", "do"), ("nd", "d"), ("d", "d"), ("bnd", "bdo")),
    *(("bnd", "ado"), ("bcnd", "cdo"), ("bcnd", "1do"), ("1cnd", "bcdo"), ("cbon", "bnd"), ("con", "n")),
)


@st.composite
def sizes(draw):
    return {letter: draw(st.integers(1, 4)) for letter in "abcdehijknost"} | {"1": 1, "z": 2}


def of_shape(letters, sizes):
    return torch.randn([sizes[letter] for letter in letters], **FLOAT64)


def check_product(call, out):
    """The call's geometry gives the output, from the matrix of its weight."""
    columns, rows, groups, outputs = check_promises(call, out, torch.randn_like(call.input))
    matrix = call.layer.matrix(call.weight).reshape(groups, outputs, -1)
    torch.testing.assert_close(matrix @ columns, rows, **CLOSE)


def check_gradient(call, run):
    """`G Aᵀ` is the weight's gradient by autograd."""
    weight = call.weight.clone().requires_grad_()
    out = run(weight)
    g = torch.randn_like(out)
    (want,) = torch.autograd.grad(out, weight, g)
    got = call.layer.flatten_grad(g) @ call.layer.unfold_input(call.input).mT
    torch.testing.assert_close(got, call.layer.matrix(want).reshape(got.shape), **CLOSE)


def each_side(a, b, run):
    """The function of either factor, for the call that takes this one for the weight."""
    return {id(a): lambda w: run(w, b), id(b): lambda w: run(a, w)}


@settings(max_examples=150, deadline=None)
@given(equation=st.sampled_from(EQUATIONS), sizes=sizes())
def test_einsum(equation, sizes):
    a, b = (of_shape(term.replace("...", "st"), sizes) for term in equation.partition("->")[0].split(","))
    calls = einsum(equation, a, b)
    assert calls
    for call in calls:
        check_product(call, torch.einsum(equation, a, b))
        check_gradient(call, each_side(a, b, lambda a, b: torch.einsum(equation, a, b))[id(call.weight)])


@settings(max_examples=150, deadline=None)
@given(shapes=st.sampled_from(MATMULS), sizes=sizes())
def test_matmul(shapes, sizes):
    sizes = sizes | {"a": sizes["b"]}
    a, b = (of_shape(letters, sizes) for letters in shapes)
    calls = matmul(a, b)
    assert calls
    for call in calls:
        check_product(call, a @ b)
        check_gradient(call, each_side(a, b, torch.matmul)[id(call.weight)])


@settings(max_examples=60, deadline=None)
@given(sizes=sizes(), dims=st.sampled_from([1, ([2], [0]), ([-1, 0], [0, 2])]))
def test_tensordot(sizes, dims):
    a, b = of_shape("btd", sizes), of_shape("dob" if isinstance(dims, tuple) else "dok", sizes)
    for call in tensordot(a, b, dims):
        check_product(call, torch.tensordot(a, b, dims))
        check_gradient(call, each_side(a, b, lambda a, b: torch.tensordot(a, b, dims))[id(call.weight)])


@settings(max_examples=60, deadline=None)
@given(leading=st.lists(st.integers(1, 3), max_size=2), sizes=sizes())
def test_bilinear(leading, sizes):
    x, y = (torch.randn(*leading, sizes[letter], **FLOAT64) for letter in "de")
    weight, bias = of_shape("ode", sizes), of_shape("o", sizes)
    call, out = read_bilinear(x, y, weight), F.bilinear(x, y, weight)
    columns, rows, _, outputs = check_promises(call, out, torch.randn_like(call.input))
    torch.testing.assert_close(weight.reshape(outputs, -1) @ columns[0], rows[0], **CLOSE)
    check_gradient(call, lambda weight: F.bilinear(x, y, weight))
    with VmapReplacements():
        torch.testing.assert_close(F.bilinear(x, y, weight, bias), F.bilinear(x, y, weight) + bias, **CLOSE)
    torch.testing.assert_close(F.bilinear(x, y, weight, bias), out + bias, **CLOSE)


def test_what_is_no_product_with_a_matrix_is_left_to_autograd():
    x, w = torch.randn(2, 3, 3), torch.randn(3, 3)
    assert not einsum("btd,dd->btd", x, w)  # a diagonal
    assert not einsum("bdd,dd->b", x, w)
    assert not einsum("btd,do,op->btp", x, w, w)
    assert not einsum(x, [0, 1, 2], w, [2, 3], [0, 1, 3])
    assert not einsum("btd,do->bto", torch.randn(2, 3, 1), w)  # repeated by broadcasting
    assert not tensordot(x, w, torch.tensor(1))
    assert not matmul(x, w, out=torch.empty(2, 3, 3))


@pytest.mark.parametrize("name", ["addmm", "addmv", "baddbmm"])
@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0.5, 1), (1, 2), (0, 3)])
def test_products_that_are_added_to(name, beta, alpha):
    first, second = {
        "addmm": (torch.randn(4, 3, **FLOAT64), torch.randn(3, 5, **FLOAT64)),
        "addmv": (torch.randn(4, 3, **FLOAT64), torch.randn(3, **FLOAT64)),
        "baddbmm": (torch.randn(2, 4, 3, **FLOAT64), torch.randn(2, 3, 5, **FLOAT64)),
    }[name]
    want = first @ second
    inputs = [torch.randn_like(want)] + ([torch.randn(5, **FLOAT64)] if name != "addmv" else [])
    for base in inputs:
        with VmapReplacements():
            got = getattr(torch, name)(base, first, second, beta=beta, alpha=alpha)
            method = getattr(base, name)(first, second, beta=beta, alpha=alpha)
        for made in (got, method):
            torch.testing.assert_close(made, beta * base + alpha * want, **CLOSE)
