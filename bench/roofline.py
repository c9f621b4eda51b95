"""GPU roofline of scoring: computed from shapes and data sheets, not measured. Nothing runs on a GPU, and nothing needs one.

python bench/roofline.py [resnet18|vit] [l2|adaptive]

The ghost engine runs as it would on CUDA, on tensors of the meta device, which have shapes and no numbers. Each operation
that it queues is charged max(FLOPs / peak, bytes / bandwidth), its bytes being those of its inputs and outputs, once each.
The sum is set against that of a plain forward pass. What the table leaves out: the time between kernels (a CUDA graph keeps
it small), caches, shapes that fill a GPU badly, and that no kernel reaches its peak. It is a bound, and no prediction.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saal_fast import perturbation
from saal_fast.engines import Problem
from saal_fast.engines.ghost import Ghost
from saal_fast.engines.ghost.backends import backends_for
from saal_fast.engines.ghost.plan import plan_for, record_usage
from saal_fast.experiments import networks
from saal_fast.ops.common.window import Window
from saal_fast.ops.ghost import triton as ghost_kernels
from saal_fast.ops.tiles import triton as tile_kernels
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

TERA = 1e12


@dataclass(frozen=True)
class Gpu:
    """Dense peaks of NVIDIA's data sheets in FLOP/s, and bytes/s of memory; the SXM versions."""

    name: str
    fp32: float
    tf32: float
    bf16: float
    bandwidth: float


GPUS = (
    Gpu("A100, 80 GB", 19.5 * TERA, 156 * TERA, 312 * TERA, 2.039 * TERA),
    Gpu("H100", 66.9 * TERA, 494.7 * TERA, 989.4 * TERA, 3.35 * TERA),
    Gpu("H200", 66.9 * TERA, 494.7 * TERA, 989.4 * TERA, 4.8 * TERA),
)


@dataclass(frozen=True)
class Precision:
    """The type of all numbers, and the rates of PyTorch's products and of our Triton kernels' products."""

    name: str
    dtype: torch.dtype
    theirs: Callable[[Gpu], float]
    ours: Callable[[Gpu], float]


PRECISIONS = (
    Precision("fp32", torch.float32, lambda gpu: gpu.fp32, lambda gpu: gpu.tf32 / 3),  # three TF32 products, as good as fp32
    Precision("TF32", torch.float32, lambda gpu: gpu.tf32, lambda gpu: gpu.tf32),
    Precision("bf16", torch.bfloat16, lambda gpu: gpu.bf16, lambda gpu: gpu.bf16),
)


@dataclass(frozen=True)
class Cost:
    """The cost of one operation. `ours` marks our kernels, whose products run at other rates."""

    kind: str
    flops: float
    bytes: float
    ours: bool

    def seconds(self, gpu: Gpu, precision: Precision) -> float:
        """The least time it takes."""
        peak = (precision.ours if self.ours else precision.theirs)(gpu)
        return max(self.flops / peak, self.bytes / gpu.bandwidth)


class Counted(TorchDispatchMode):
    """Keeps the cost of every operation that is more than a view."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[Cost] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not view and name not in ("_unsafe_view", "lift_fresh", "empty", "new_empty", "empty_like"):
            flops = FLOPS[name](args, out) if name in FLOPS else 0.0
            ours = func.namespace == "saal_fast"
            moved = sum(map(size_of, (*tensors(args), *tensors(kwargs), *tensors(out))))
            self.costs.append(Cost(KINDS.get(name, "element by element"), flops, moved, ours))
        return out


def tensors(tree: Any) -> Iterator[Tensor]:
    return (t for t in tree_leaves(tree) if isinstance(t, Tensor))


def size_of(t: Tensor) -> float:
    """Bytes of a tensor; expanded elements count once."""
    numbers = 1
    for length, stride in zip(t.shape, t.stride(), strict=True):
        numbers *= length if stride else 1
    return numbers * t.element_size()


# --- FLOPs ----------------------------------------------------------------------------------------


def convolution(args: Any, out: Tensor) -> float:
    return 2.0 * out.numel() * args[1][0].numel()


def convolution_backward(args: Any, out: Any) -> float:
    grad, _, weight, *_, mask = args
    return 2.0 * grad.numel() * weight[0].numel() * sum(mask[:2])


def product(left: int) -> Callable[[Any, Tensor], float]:
    """FLOPs of a matrix product whose left factor is the argument at that position."""
    return lambda args, out: 2.0 * out.numel() * args[left].shape[-1]


def factors(numbers: list[int] | None, a: Tensor, g: Tensor) -> tuple[int, int, int, int]:
    """N · groups, T, and a group's D and O."""
    if numbers is None:
        return a.shape[0], a.shape[1], a.shape[2], g.shape[2]
    kernel, *_, groups = Window.of(numbers)
    return a.shape[0] * groups, g[0, 0].numel(), a.shape[1] // groups * kernel[0] * kernel[1], g.shape[1] // groups


def ghost_norm(args: Any, out: Tensor) -> float:
    n, t, d, o = factors(args[2], *args[:2])
    block = ghost_kernels.choose_norm(t, args[0].dtype != torch.float32).blocks["b_T"]
    blocks = -(-t // block)
    return n * blocks * (blocks + 1) / 2 * block**2 * 2.0 * (d + o)  # nothing above the diagonal


def ghost_apply(args: Any, out: Tensor) -> float:
    n, t, d, o = factors(args[5], *args[:2])
    return 2.0 * n * t * (out.shape[1] if out.ndim == 3 else out[0, 0].numel()) * (d + o)


def formed(args: Any, weight: Tensor) -> tuple[float, int, int]:
    """FLOPs of forming every gradient once; outputs of a group, and T."""
    g = args[1]
    t, outputs = (g[0, 0].numel(), g.shape[1]) if g.ndim == 4 else (g.shape[1], g.shape[2])
    return 2.0 * g.shape[0] * weight.numel() * t, outputs, t


def tile_norm(args: Any, out: Tensor) -> float:
    return formed(args, args[2])[0]


def tile_apply(args: Any, out: Tensor) -> float:
    flops, outputs, t = formed(args, args[3])
    s = out[0, 0].numel() if out.ndim == 4 else out.shape[1]
    if t == 1:  # in closed form
        return 4.0 * out.shape[0] * args[3].numel() * s
    block = tile_kernels.choose_apply(outputs, t, s, args[0].dtype != torch.float32).blocks["b_S"]
    passed = flops / t * s
    return flops * -(-s // block) + 2 * passed  # with W, and with the step


FLOPS: dict[str, Callable[[Any, Any], float]] = {
    "convolution": convolution,
    "convolution_backward": convolution_backward,
    "mm": product(0),
    "bmm": product(0),
    "addmm": product(1),
    "baddbmm": product(1),
    "ghost_norm": ghost_norm,
    "ghost_apply": ghost_apply,
    "tile_norm": tile_norm,
    "tile_apply": tile_apply,
}
KINDS = {
    **dict.fromkeys(("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm"), "products"),
    **{name: "norms of factors" for name in FLOPS if name.endswith("_norm")},
    **{name: "steps of factors" for name in FLOPS if name.endswith("_apply")},
}


# --- models and the table -------------------------------------------------------------------------


def resnet18() -> tuple[nn.Module, tuple[int, ...]]:
    return networks.resnet18(10), (256, 3, 32, 32)


def vit() -> tuple[nn.Module, tuple[int, ...]]:
    return torchvision.models.vit_b_16(), (64, 3, 224, 224)


MODELS = {"resnet18": ("ResNet-18, 32×32", resnet18), "vit": ("ViT-B/16, 224×224", vit)}
RULES = {"l2": {}, "adaptive": {"adaptive": True}}


def counted(build: Callable[[], Any], dtype: torch.dtype, rule: str) -> tuple[list[Cost], list[Cost], Counter[str], int]:
    """Operations of a plain forward pass and of a batch of scores, the modes taken, and the batch's size."""
    with torch.device("meta"):
        model, shape = build()
    model = model.to(dtype).eval()
    pool = torch.empty(shape, dtype=dtype, device="meta")
    params = {name: p.detach() for name, p in model.named_parameters()}  # `Problem.of` refuses weights without values
    problem = Problem(model, params, {}, perturbation.make(0.05, **RULES[rule]), Classification(), pool.device)
    with torch.no_grad(), Counted() as forward:
        model(pool)
    with torch.no_grad():
        sample = Batch((pool[:1],), {}, 1)
        uses, plan = record_usage(problem, sample).uses(), plan_for(problem, sample)
    shared = sum(2.0 * c.weight[0].numel() * torch.Size(out).numel() for calls in uses.values() for c, out in calls)
    total = sum(cost.flops for cost in forward.costs) / len(pool)
    assert shared <= total <= 1.1 * shared, "the layers that the plan sees are not where the FLOPs of the forward pass are"
    engine = Ghost(problem, backends_for(problem, fused=True))
    batch = Batch((pool,), {}, len(pool))
    with torch.no_grad():
        engine.plan(batch)  # made once a shape, by a pass of its own
        with Counted() as scoring:
            engine(batch)
    modes = Counter(call.mode for call in plan.calls)
    modes["autograd"] = len(plan.autograd)
    return forward.costs, scoring.costs, modes, len(pool)


def main(*chosen: str) -> None:
    for name, (title, build) in MODELS.items():
        for rule in RULES:
            if {name, rule} >= set(chosen):
                table(title, build, rule)


def table(title: str, build: Callable[[], Any], rule: str) -> None:
    made = {dtype: counted(build, dtype, rule) for dtype in {p.dtype for p in PRECISIONS}}
    forward, scoring, modes, n = made[torch.float32]
    taken = ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items()))
    print(f"\n**{title}, {rule}**, batches of {n} ({taken}). A sample, fp32:\n")
    print("| | GFLOP | MB moved | operations a batch |\n| --- | --- | --- | --- |")
    kinds = ("products", "norms of factors", "steps of factors", "element by element")
    parts = {f"scoring: {kind}": [c for c in scoring if c.kind == kind] for kind in kinds}
    for label, costs in {"plain forward pass": forward, **parts}.items():
        flops, moved = sum(c.flops for c in costs) / n / 1e9, sum(c.bytes for c in costs) / n / 1e6
        print(f"| {label} | {flops:.2f} | {moved:.1f} | {len(costs)} |")
    heads = (f"{p.name}: forward, µs a sample | scoring / forward" for p in PRECISIONS)
    print(f"\n| computed, not measured | {' | '.join(heads)} |\n| --- |" + " --- | --- |" * len(PRECISIONS))
    for gpu in GPUS:
        cells = []
        for precision in PRECISIONS:
            base, work, _, _ = made[precision.dtype]
            plain, scored = (sum(c.seconds(gpu, precision) for c in costs) for costs in (base, work))
            cells.append(f"{1e6 * plain / n:.1f} | {scored / plain:.1f}")
        print(f"| {gpu.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
