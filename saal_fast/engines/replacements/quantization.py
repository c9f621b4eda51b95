"""Quantisation that is only simulated (quantisation-aware training), batched.

`vmap` has no rules for these operations: each is run sample by sample, all others around it for the batch. Gradients pass
where a number was within range (straight-through).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..layers import register_replacement


@register_replacement(torch.fake_quantize_per_tensor_affine)
def fake_quantize_per_tensor_affine(input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    """`torch.fake_quantize_per_tensor_affine`."""

    def run(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        enabled = torch.ones(1, dtype=torch.int64, device=x.device)
        found = torch._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
            x, scale, zero_point, enabled, quant_min, quant_max
        )
        return found[0], found[1]

    scale = torch.as_tensor(scale, dtype=torch.float32, device=input.device).reshape(1)
    zero_point = torch.as_tensor(zero_point, device=input.device).to(torch.int32).reshape(1)
    out: Tensor = _Passed.apply(run, input, scale, zero_point)[0]
    return out


@register_replacement(torch.fake_quantize_per_channel_affine)
def fake_quantize_per_channel_affine(
    input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """`torch.fake_quantize_per_channel_affine`."""

    def run(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, Tensor]:
        found = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(x, scale, zero_point, axis, quant_min, quant_max)
        return found[0], found[1]

    out: Tensor = _Passed.apply(run, input, scale, zero_point)[0]
    return out


@register_replacement(torch.fused_moving_avg_obs_fake_quant)
def fused_moving_avg_obs_fake_quant(
    input: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    running_min: Tensor,
    running_max: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    averaging_const: float,
    quant_min: int,
    quant_max: int,
    ch_axis: int,
    per_row_fake_quant: bool = False,
    symmetric_quant: bool = False,
) -> Tensor:
    """`torch.fused_moving_avg_obs_fake_quant`, which writes what it has observed into its arguments."""
    kept = (running_min, running_max, scale, zero_point)

    def run(x: Tensor, observer_on: Tensor, fake_quant_on: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        new = tuple(t.clone() for t in kept)
        helper: Any = torch._fused_moving_avg_obs_fq_helper
        out, mask = helper(
            x,
            observer_on,
            fake_quant_on,
            *new,
            averaging_const,
            quant_min,
            quant_max,
            ch_axis,
            per_row_fake_quant,
            symmetric_quant,
        )
        return out, mask, *new

    found: tuple[Tensor, ...] = _Passed.apply(run, input, observer_on, fake_quant_on, *kept)
    if bool(observer_on):
        for t, by in zip(kept, found[2:], strict=True):
            if t.shape != by.shape:
                t.resize_(by.shape)
            t.copy_(by)
    return found[0]


class _Passed(torch.autograd.Function):
    """Runs `run(x, *others)`, whose first output has x's gradient where its second is True."""

    @staticmethod
    def forward(run: Callable[..., tuple[Tensor, ...]], x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return run(x, *others)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.count = len(inputs)
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
        return None, grad * ctx.saved_tensors[0], *(None,) * (ctx.count - 2)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], run: Any, x: Tensor, *others: Tensor) -> tuple[Any, Any]:
        rows = []
        for i in range(info.batch_size):
            one = [t if dim is None else t.select(dim, i) for t, dim in zip((x, *others), in_dims[1:], strict=True)]
            rows.append(_Passed.apply(run, *one))
        outs = tuple(torch.stack(column) for column in zip(*rows, strict=True))
        return outs, (0,) * len(outs)
