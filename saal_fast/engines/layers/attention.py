"""Attention: the projections around it are linear layers, and `vmap` has no rule for the fused kernels in it."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from ...ops.common.registration import fold
from .base import register_decomposition, register_replacement, takes_tangents

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
Fused = tuple[Tensor, Tensor]


class _Attention(torch.autograd.Function):
    """torch's fused attention of a CPU, samples folded into its batch under `vmap`.

    q [N, H, T, D], k and v [N, H, S, D], mask [N or 1, H or 1, T, S] to be added or None, causal, scale. It gives the
    output, and the logarithm of each query's sum for the way back.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Fused:
        out: Fused = _flash(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Fused) -> None:
        q, k, v, mask, ctx.causal, ctx.scale = inputs
        ctx.save_for_backward(q, k, v, mask, *output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        if torch.is_grad_enabled():  # the gradients may be differentiated in their turn
            q, k, v, mask, *_ = ctx.saved_tensors
            return *_backward(grad, q, k, v, mask, ctx.causal, ctx.scale), None, None, None
        return *_AttentionBackward.apply(grad, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None, None

    @staticmethod
    def vmap(info: object, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Fused, tuple[int, int]]:
        return _folded(_Attention.apply, info, in_dims, args, mask=3)


class _AttentionBackward(torch.autograd.Function):
    """The gradients of `_Attention` by q, k and v."""

    @staticmethod
    def forward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        out: Tensor,
        logsumexp: Tensor,
        causal: bool,
        scale: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads: tuple[Tensor, Tensor, Tensor] = _flash_backward(
            grad, q, k, v, out, logsumexp, 0.0, causal, attn_mask=mask, scale=scale
        )
        return grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError("expected a pass back that records no graph: others run by `_backward`")

    @staticmethod
    def vmap(info: object, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        return _folded(_AttentionBackward.apply, info, in_dims, args, mask=4)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `_Attention` by q, k and v in plain operations."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = (q @ k.mT) * scale
    if causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~past, -torch.inf)
    shares = torch._safe_softmax(scores if mask is None else scores + mask, -1)
    by_shares = grad @ v.mT
    by_scores = shares * (by_shares - (by_shares * shares).sum(-1, keepdim=True)) * scale
    return by_scores @ k, by_scores.mT @ q, shares.mT @ grad


def _folded(
    run: Callable[..., Any], info: object, in_dims: tuple[int | None, ...], args: tuple[Any, ...], mask: int
) -> tuple[Any, Any]:
    """`fold` for functions whose last two arguments are no tensors; a mask that samples share is not copied."""
    tensors = args[:-2]
    shared = [i == mask and in_dims[i] is None and t is not None and len(t) == 1 for i, t in enumerate(tensors)]
    return fold(info, in_dims, run, tensors, shared, *args[-2:])


@register_replacement(F.scaled_dot_product_attention)
def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
    """The same by means that take all samples at once: `vmap` would run the fused kernels sample by sample."""
    device = args[0].device.type if args else kwargs["query"].device.type
    if not torch.is_autocast_enabled(device):
        return _attention(*args, **kwargs)
    # Autocast would cast at each of its steps, but under vmap not on their way back.
    half = torch.get_autocast_dtype(device)
    args, kwargs = tree_map(lambda t: t.to(half) if _is_float(t) else t, (args, kwargs))
    with torch.autocast(device, enabled=False):
        return _attention(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` by torch's fused kernel where it knows the shapes, else in plain operations."""
    fits = query.ndim == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2] and key.shape[2:] == value.shape[2:]
    fits = fits and query.shape[3] == key.shape[3] and not (dropout_p or (enable_gqa and query.shape[1] != key.shape[1]))
    if attn_mask is not None:
        fits = fits and attn_mask.ndim in (2, 4) and not (attn_mask.requires_grad or is_causal)
    if not fits or query.device.type != "cpu" or 0 in query.shape or 0 in key.shape or takes_tangents():
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
    out: Tensor = _Attention.apply(query, key, value, _added(attn_mask, query), is_causal, scale)[0]
    return out


def _added(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """A mask of four dimensions, to be added."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros((), dtype=query.dtype).masked_fill(~mask, -torch.inf)
    mask = mask.to(query.dtype)
    mask = mask[None, None] if mask.ndim == 2 else mask
    return mask if len(query) == 1 or len(mask) == len(query) else mask.expand(len(query), -1, -1, -1)


@register_replacement(torch._nested_tensor_from_mask_left_aligned)
def nested_tensor_from_mask_left_aligned(*args: Any) -> bool:
    """Whether `nn.TransformerEncoder` may take its fused path, which it leaves in a pass that is differentiated: no."""
    return False


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


_body = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda tensors: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


@register_decomposition(F.multi_head_attention_forward)
def multi_head_attention_forward(*args: Any, **kwargs: Any) -> Any:
    """The code torch runs itself, without handing itself over as a whole: its linear layers are seen one by one."""
    return _body(*args, **kwargs)
