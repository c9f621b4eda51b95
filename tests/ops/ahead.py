"""Compiles Triton kernels ahead of time, without a GPU, and tells what they take of a multiprocessor.

    python tests/ops/ahead.py            writes triton_budget.json anew, for every kernel, tuning choice and architecture

The budget holds for the Triton release that it names: another compiler takes other registers. No release may exceed the
hardware's own limits (`beyond_limits`). What is compiled is what the host functions launch: the same `Launch`, made from
tensors without memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from saal_fast.ops.common.triton.launch import Config, Launch
from saal_fast.ops.common.window import LINEAR, Window
from saal_fast.ops.cross_entropy import triton as cross_entropy
from saal_fast.ops.flat import triton as flat
from saal_fast.ops.ghost import triton as ghost
from saal_fast.ops.tiles import triton as tiles

BUDGET = Path(__file__).with_name("triton_budget.json")
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""The most shared memory a thread block may have, in bytes, by compute capability (CUDA C++ Programming Guide, Table 30)."""
CAPABILITIES = tuple(SHARED)
REGISTERS_A_THREAD, REGISTERS_A_BLOCK = 255, 65_536
LAYERS = {
    # T or image, D or channels, O, and a convolution's window
    "linear": (64, 768, 768, None),
    "odd": (63, 33, 35, None),  # nothing is a multiple of 16, so that loads are narrow
    "conv": ((8, 8), 512, 512, Window((3, 3), padding=(1, 1, 1, 1))),
    "strided": ((8, 8), 64, 66, Window((3, 2), (2, 2), (1, 0, 1, 0), groups=2)),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAPS = {"adaptive": ("adaptive", 2.0), "power": ("lp", 1.5)}  # a kernel's map by the rule that takes it
VARIANTS = [
    ("linear", "adaptive", "fp32"),
    ("linear", "adaptive", "bf16"),
    ("conv", "adaptive", "fp32"),
    ("conv", "adaptive", "bf16"),
    ("odd", "adaptive", "fp32"),
]
"""Layer, rule's map and dtype by which every tuning choice is compiled for every architecture."""
MORE = [("strided", "adaptive", "fp32"), ("linear", "power", "fp32"), ("linear", "adaptive", "fp16")]
"""Those by which it is compiled for one architecture."""
QUICK = re.compile(r"sm_90 (\w+ linear adaptive (fp32|bf16)|cross_entropy pseudo|flat_\w+ adaptive) ")
"""What is compiled in less than a minute: every tuning choice once."""


def cases() -> Iterator[tuple[str, int, Launch]]:
    """Each compile: its name (architecture, kernel, variant, tuning choice), the architecture, and the launch."""
    for capability in CAPABILITIES:
        variants = VARIANTS + MORE if capability == 90 else VARIANTS
        for variant in variants:
            for name, launch in layer_launches(*variant):
                yield f"sm_{capability} {name} {' '.join(variant)} {launch.config.name}", capability, launch
        for name, launch in other_launches():
            yield f"sm_{capability} {name} {launch.config.name}", capability, launch


def layer_launches(layer: str, rule: str, dtype: str) -> Iterator[tuple[str, Launch]]:
    """Every kernel of a layer with every tuning choice for the dtype."""
    t, d, o, window = LAYERS[layer]
    bits = 32 if dtype == "fp32" else 16
    if window is None:
        a, g, w, window = empty(64, t, d, dtype=dtype), empty(64, t, o, dtype=dtype), empty(o, d), LINEAR
    else:
        size = window.output_size(*t)
        a, g, w = (
            empty(64, d, *t, dtype=dtype),
            empty(64, o, *size, dtype=dtype),
            empty(o, d // window.groups, *window.kernel),
        )
    scales, wide = empty(64), torch.empty_like(g, dtype=torch.float32)
    for c in allowed(tiles.NORM_CONFIGS, bits):
        yield "tile_norm", tiles.norm_launch(a, g, w, window, *MAPS[rule], c)[0]
    for c in allowed(tiles.APPLY_CONFIGS, bits):
        yield "tile_apply", tiles.step_launch(a, g, a, w, scales, torch.empty_like(g), window, *MAPS[rule], c)
    for c in allowed(ghost.NORM_CONFIGS, bits):
        yield "ghost_norm", ghost.norm_launch(a, g, window, True, c)[0]
    for c in allowed(ghost.APPLY_CONFIGS, bits):
        yield "ghost_apply", ghost.apply_launch(a, g, a, scales, g, wide, window, True, c)


def other_launches() -> Iterator[tuple[str, Launch]]:
    """Every other kernel with every tuning choice."""
    label = torch.empty(64, dtype=torch.int64, device="meta")
    for variant, given in (("pseudo", None), ("given", label)):
        for c in cross_entropy.CONFIGS:
            yield f"cross_entropy {variant}", cross_entropy.launch(empty(64, 1000), given, c)[0]
    for rule in ("adaptive", "power"):
        for c in flat.CONFIGS:
            g, w = empty(64, 10000), empty(10000)
            yield f"flat_norm {rule}", flat.norm_launch(g, w, *MAPS[rule], c)[0]
            yield f"flat_step {rule}", flat.step_launch(g, w, empty(64), *MAPS[rule], c)[0]


def allowed(configs: Iterable[Config], bits: int) -> list[Config]:
    """The tuning choices that operands of so many bits may get."""
    return [c for c in configs if c.bits in (None, bits)]


def empty(*shape: int, dtype: str = "fp32") -> torch.Tensor:
    """A tensor without memory."""
    return torch.empty(*shape, dtype=DTYPES[dtype], device="meta")


def compiled(launch: Launch, capability: int):
    """The kernel, compiled as a launch with these arguments would."""
    types = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64"}
    constants = {**launch.constants, **launch.config.blocks}
    signature, attributes = {}, {}
    for i, name in enumerate(launch.kernel.arg_names):
        value = launch.args.get(name)
        divisible = False
        if name in constants:
            signature[name] = "constexpr"
        elif isinstance(value, torch.Tensor):
            signature[name], divisible = f"*{types[value.dtype]}", True
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1:
            signature[name], constants[name] = "constexpr", 1
        else:
            signature[name], divisible = "i32", value % 16 == 0
        if divisible:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    options = {"num_warps": launch.config.num_warps, "num_stages": launch.config.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def figures(launch: Launch, capability: int) -> dict[str, int]:
    """Registers a thread, shared memory a program in bytes, and bytes of spilled registers a thread."""
    kernel = compiled(launch, capability)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = {k: int(v) for k, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", told.stdout + told.stderr)}
    return {
        "registers": found["REG"],
        "shared": int(kernel.metadata.shared),
        "spilled": spilled(kernel.asm["ptx"], capability) if found["STACK"] or found["LOCAL"] else 0,
    }


def spilled(ptx: str, capability: int) -> int:
    """Bytes of registers that ptxas spills: a stack may hold other things too."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin" / ("ptxas" if capability < 100 else "ptxas-blackwell")
    suffix = "" if capability < 90 else "a"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [tool, "-v", f"--gpu-name=sm_{capability}{suffix}", source, "-o", Path(folder, "kernel.cubin")]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
    stores = re.findall(r"(\d+) bytes spill (?:stores|loads)", told.stdout + told.stderr)
    return max(map(int, stores))


def beyond_limits(launch: Launch, capability: int, taken: dict[str, int]) -> list[str]:
    """What a compiled kernel takes that no device of the architecture has."""
    in_a_block = taken["registers"] * 32 * launch.config.num_warps
    limits = {
        "registers a thread": (taken["registers"], REGISTERS_A_THREAD),
        "registers a block": (in_a_block, REGISTERS_A_BLOCK),
        "bytes of shared memory": (taken["shared"], SHARED[capability]),
    }
    return [f"{amount} {what}, at most {most}" for what, (amount, most) in limits.items() if amount > most]


def allowance(measured: dict[str, int]) -> dict[str, int]:
    """What a kernel may take: a little more than it does, for small changes of the kernel; no further spill."""
    registers = min(255, 8 * (measured["registers"] // 8 + 3))
    return {"registers": registers, "shared": 4096 * (measured["shared"] // 4096 + 1), "spilled": measured["spilled"]}


def main() -> None:
    """Writes the budget of the installed Triton release: anew, or the entries that match a pattern."""
    only = re.compile(sys.argv[1]) if len(sys.argv) > 1 else None
    budget = json.loads(BUDGET.read_text()) if only else {"triton": triton.__version__, "cases": {}}
    if budget["triton"] != triton.__version__:
        sys.exit(f"the budget is of triton {budget['triton']}, installed is {triton.__version__}: renew all of it")
    over = []
    for name, capability, launch in cases():
        if only is None or only.search(name):
            taken = figures(launch, capability)
            budget["cases"][name] = allowance(taken)
            over += [f"{name}: {line}" for line in beyond_limits(launch, capability, taken)]
            print(name, taken, flush=True)
    lines = (f"    {json.dumps(name)}: {json.dumps(budget['cases'][name])}" for name in sorted(budget["cases"]))
    heading = f'{{\n  "triton": {json.dumps(budget["triton"])},\n  "cases": {{\n'
    BUDGET.write_text(heading + ",\n".join(lines) + "\n  }\n}\n")
    if over:
        sys.exit("beyond limits:\n" + "\n".join(over))


if __name__ == "__main__":
    main()
