"""One way to register an operator's kernels and its rule under `vmap`, for all operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef

from ..._utils.proofs import Arguments, Proof, proven
from . import triton

Trials: TypeAlias = "Callable[[torch.device, torch.dtype], Iterable[Arguments]]"


def _of_type(trials: Trials, dtype: torch.dtype) -> Callable[[torch.device], Iterable[Arguments]]:
    return lambda device: trials(device, dtype)


def register(
    op: CustomOpDef,
    reference: Callable[..., Any],
    *,
    shared: Sequence[bool],
    cpu: Callable[..., Any] | None = None,
    triton_module: str | None = None,
    trials: Trials | None = None,
) -> None:
    """Registers an operator whose samples lie along the first dimension.

    Args:
        op: the operator; its tensors are its first arguments.
        reference: what it computes, in plain PyTorch; runs where there is no kernel.
        shared: which of its tensors the samples share, and so have no sample dimension.
        cpu: its kernel on a CPU.
        triton_module: name of the module whose function of the reference's name is its kernel on CUDA. It is imported when
            the first CUDA tensor arrives; without triton, for types that the kernels don't take, and on a device where the
            kernel has not proved itself, the reference runs.
        trials: gives the arguments of a type on which the CUDA kernel proves itself on a device; see `trials.py`.
    """
    if cpu is not None:
        op.register_kernel("cpu")(cpu)
    if triton_module is not None:
        if trials is None:
            raise TypeError(f"expected trials for {op._name}: its kernel proves itself on a device before it serves")

        def kernel(*args: Any) -> Any:
            return getattr(import_module(triton_module), reference.__name__)(*args)

        proofs = {
            dtype: Proof(
                f"{op._name} of {str(dtype).removeprefix('torch.')}",
                _of_type(trials, dtype),
                kernel,
                reference,
            )
            for dtype in triton.KERNEL_DTYPES
        }

        def on_cuda(*args: Any) -> Any:
            floats = [t for t in args if isinstance(t, Tensor) and t.is_floating_point()]
            serves = triton.usable(args) and floats and proven(proofs[floats[0].dtype], floats[0].device)
            return (kernel if serves else reference)(*args)

        op.register_kernel("cuda")(on_cuda)

    def under_vmap(info: object, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        n = len(shared)
        return fold(info, in_dims, op, args[:n], shared, *args[n:])

    op.register_vmap(under_vmap)


def fold(
    info: object,
    in_dims: Sequence[int | None],
    op: Callable[..., Any],
    tensors: Sequence[Tensor | None],
    shared: Sequence[bool],
    *rest: object,
) -> tuple[Any, Any]:
    """A `register_vmap` rule for operators whose sample dimension comes first: the mapped dimension is folded into it.

    Args:
        info: what `vmap` says of itself; its batch size is used.
        in_dims: the mapped dimension of each of the operator's arguments.
        op: the operator; its output is a tensor, or a tuple of tensors.
        tensors: its tensor arguments, which come first, not yet folded.
        shared: which of them have no sample dimension; if such a one is mapped, samples are taken one by one.
        rest: its other arguments.

    Returns:
        What a vmap rule returns: the output, and where its mapped dimension is.
    """
    size: int = info.batch_size  # type: ignore[attr-defined]
    each = [t if t is None or d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims, strict=False)]
    mapped = [d is not None for d in in_dims[: len(each)]]
    if any(m and s for m, s in zip(mapped, shared, strict=False)):
        rows = [[t[i] if t is not None and m else t for t, m in zip(each, mapped, strict=True)] for i in range(size)]
        outs = [op(*row, *rest) for row in rows]
        if isinstance(outs[0], tuple):
            return tuple(map(torch.stack, zip(*outs, strict=True))), (0,) * len(outs[0])
        return torch.stack(outs), 0
    folded = [
        t if t is None or s else (t if m else t.expand(size, *t.shape)).flatten(0, 1)
        for t, m, s in zip(each, mapped, shared, strict=False)
    ]
    out = op(*folded, *rest)
    if isinstance(out, tuple):
        return tuple(_unfolded(t, size) for t in out), (0,) * len(out)
    return _unfolded(out, size), 0


def _unfolded(out: Tensor, size: int) -> Tensor:
    return out.reshape(size, out.shape[0] // size, *out.shape[1:])
