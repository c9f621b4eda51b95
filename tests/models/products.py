"""Products with a parameter by other functions than `F.linear`, and with views of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CLASSES, SAMPLES, Case, Function, case


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.5 * torch.randn(*shape))


def _product(use: Callable[[Any, Tensor], Tensor], **parts: Any) -> Case:
    """A model of features [N, T, 6] = `use(self, x)`, with x [N, T, 6]."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(use(self, x.cos()).tanh().flatten(2).mean(1))

    return Case(Function(forward, head=nn.Linear(6, CLASSES), **parts), torch.randn(SAMPLES, 5, 6))


def _each(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of one sample, of each."""
    return torch.stack([run(one) for one in x])


@case
def addmm_as_gpt2_has_it() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        inner = torch.addmm(self.b, x.view(-1, x.size(-1)), self.w).tanh()
        return torch.addmm(self.d, inner, self.v, beta=0.5, alpha=2.0).view(*x.shape[:-1], -1)

    return _product(use, w=_weight(6, 9), b=_weight(9), v=_weight(9, 6), d=_weight(6))


@case
def addmm_of_a_residual() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        return _each(lambda one: self.b.addmm(one.addmm(one, self.w), self.w), x)

    return _product(use, w=_weight(6, 6), b=_weight(5, 6))


@case
def weight_from_the_right() -> Case:
    return _product(lambda self, x: torch.matmul((x @ self.w).tanh(), self.v), w=_weight(6, 4), v=_weight(4, 6))


@case
def weight_from_the_left() -> Case:
    """As an MLP-Mixer mixes tokens."""
    return _product(lambda self, x: self.w @ x + torch.matmul(self.v, x), w=_weight(4, 5), v=_weight(1, 4, 5))


@case
def weight_transposed() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        x = (x @ self.a.T).tanh() @ self.b.mT
        x = _each(lambda one: torch.mm(one, self.c.t()).tanh().mm(self.d.transpose(0, 1)), x)
        return F.linear(F.linear(x, self.e.T).tanh(), self.f.permute(1, 0))

    parts = {name: _weight(*shape) for name, shape in zip("abcdef", 2 * [(4, 6), (6, 4)] + [(6, 4), (4, 6)], strict=True)}
    return _product(use, **parts)


@case
def weight_transposed_and_not() -> Case:
    """As a tied autoencoder has it, whose factors don't join."""
    return _product(lambda self, x: (x @ self.w).tanh() @ self.w.T, w=_weight(6, 4))


@case
def weight_used_twice_in_two_spellings() -> Case:
    return _product(lambda self, x: F.linear((x @ self.w).tanh(), self.w.T), w=_weight(6, 6))


@case
def weights_packed() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        q, k, v = (F.linear(x, w, b) for w, b in zip(self.w.chunk(3), self.b.chunk(3), strict=True))
        return F.scaled_dot_product_attention(q, k, v)

    return _product(use, w=_weight(18, 6), b=_weight(18))


@case
def weights_packed_of_which_some_are_used() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        rows, columns = F.linear(x, self.rows[6:12], self.b[6:12]), x[..., :4] @ self.columns[:, 1:7]
        return rows.tanh() + columns + (x[..., :4] @ self.columns[:, 7:]).mean(-1, keepdim=True)

    return _product(use, rows=_weight(18, 6), b=_weight(18), columns=_weight(4, 9))


@case
def weights_packed_that_overlap() -> Case:
    return _product(lambda self, x: F.linear(x, self.w[:6]) + F.linear(x, self.w[2:8]), w=_weight(8, 6))


@case
def weight_and_a_slice_of_it() -> Case:
    return _product(lambda self, x: F.linear(x, self.w) + F.linear(x, self.w[:1], self.b[:1]), w=_weight(6, 6), b=_weight(6))


@case
def weights_of_heads() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        heads = torch.einsum("btd,dhk->bhtk", x, self.w).tanh()
        return torch.einsum("bhtk,hkd->btd", heads, self.v)

    return _product(use, w=_weight(6, 2, 3), v=_weight(2, 3, 6))


@case
def einsum_in_other_spellings() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        x = torch.einsum("...d, od -> ...o", x, self.a).tanh()
        x = torch.einsum("dz,bt d", self.b, x).tanh()  # the output is btz
        return torch.einsum("bst,ts,bsd->btd", self.mix.expand(1, 5, 5), self.mix, x) + torch.einsum(
            "btd,do->bo", [x, self.c]
        ).unsqueeze(1)

    return _product(use, a=_weight(6, 6), b=_weight(6, 6), c=_weight(6, 6), mix=_weight(5, 5))


@case
def einsum_of_a_diagonal_and_of_sums() -> Case:
    return _product(
        lambda self, x: torch.einsum("btd,dd->btd", x, self.w) + torch.einsum("btd,do->btd", x, self.v),
        w=_weight(6, 6),
        v=_weight(6, 4),
    )


@case
def tensordot() -> Case:
    return _product(
        lambda self, x: torch.tensordot(torch.tensordot(x, self.w, 1).tanh(), self.v, ([2, 3], [1, 0])),
        w=_weight(6, 2, 3),
        v=_weight(3, 2, 6),
    )


@case
def experts() -> Case:
    """Each expert has some of the features: as `torch.bmm` wants it, and added to by a bias for each."""

    def use(self: Any, x: Tensor) -> Tensor:
        return _each(lambda one: of_one(self, one), x)

    def of_one(self: Any, x: Tensor) -> Tensor:
        each = x.unflatten(1, (3, 2)).transpose(0, 1)  # [experts, T, 2]
        inner = torch.baddbmm(self.b, each, self.w).tanh()
        return torch.bmm(inner, self.v).transpose(0, 1).flatten(1)

    return _product(use, w=_weight(3, 2, 4), b=_weight(3, 1, 4), v=_weight(3, 4, 2))


@case
def experts_that_see_everything() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        every = x[:, None] @ self.w  # [N, experts, T, 4]
        return torch.einsum("betk,eok->bto", every.tanh(), self.v)

    return _product(use, w=_weight(3, 6, 4), v=_weight(3, 6, 4))


@case
def experts_one_by_one() -> Case:
    return _product(lambda self, x: sum(F.linear(x, w).tanh() for w in self.w[:2]), w=_weight(3, 6, 6))


@case
def one_weight_for_all_heads() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        return _each(lambda one: of_one(self, one), x)

    def of_one(self: Any, x: Tensor) -> Tensor:
        heads = x.unflatten(1, (3, 2)).transpose(0, 1)  # [3, T, 2]
        return torch.bmm(heads, self.w.expand(3, 2, 2)).transpose(0, 1).flatten(1)

    return _product(use, w=_weight(2, 2))


@case
def weight_vector() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        seen = _each(lambda one: torch.mv(one, self.w), x)
        return x * (x @ self.w).softmax(1).unsqueeze(-1) + seen.unsqueeze(-1)

    return _product(use, w=_weight(6))


@case
def weight_without_its_gradient() -> Case:
    """No gradient flows through what is detached, or a view made without."""

    def use(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            frozen = self.w.T
        return (x @ self.w.detach().T + x @ frozen).tanh() + F.linear(x, self.w)

    return _product(use, w=_weight(6, 6))


@case
def low_rank() -> Case:
    return _product(lambda self, x: x @ (self.a @ self.b) + (x @ self.a) @ self.b, a=_weight(6, 2), b=_weight(2, 6))


@case
def weight_copied() -> Case:
    return _product(lambda self, x: x @ self.w.T.contiguous().mul_(2.0), w=_weight(6, 6))


@case
def bilinear_at_many_positions() -> Case:
    def use(self: Any, x: Tensor) -> Tensor:
        x = F.bilinear(x, x.roll(1, 1)[..., :3].contiguous(), self.w, self.b).tanh()
        return F.bilinear(x, x, self.v) + F.bilinear(x.cos(), x, self.v)

    return _product(use, w=_weight(4, 6, 3), b=_weight(4), v=_weight(6, 4, 4))


SPELLINGS = (
    "addmm_of_a_residual",
    "weight_from_the_right",
    "weight_from_the_left",
    "weight_transposed",
    "weight_used_twice_in_two_spellings",
    "weights_packed_of_which_some_are_used",
    "weights_packed_that_overlap",
    "weight_and_a_slice_of_it",
    "weights_of_heads",
    "einsum_of_a_diagonal_and_of_sums",
    "tensordot",
    "experts_that_see_everything",
    "experts_one_by_one",
    "one_weight_for_all_heads",
    "weight_vector",
    "weight_without_its_gradient",
)
"""Models whose kind others here stand for; most tests try them slowly alone."""
