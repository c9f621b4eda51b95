"""Calls every function of the C++ core with drawn arguments: `python fuzz_core.py SEED DRAWS`.

Most draws begin as a valid call, of which some arguments are then replaced. A call may succeed, or raise one of `EXPECTED`;
anything else, a crash above all, ends the program. Prints how many calls succeeded and failed.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from saal_fast import _native

EXPECTED = (ValueError, TypeError, MemoryError)
core = _native.core()
rng = random.Random(int(sys.argv[1]))

NUMBERS = [0, 1, 2, 3, 5, 7, 16, 64, -1, -3, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63), 2**64 - 1, 2**70]
FLOATS = [0.0, -1.0, 1.0, 2.0, 2.5, float("inf"), float("nan"), 1e308, 5e-324]
TEXTS = [
    "",
    "baseline",
    "avx2",
    "avx512",
    "random",
    "argmax",
    "plain",
    "rejection",
    "sorted",
    "auto",
    "square",
    "\0",
    "é",
    "x" * 99,
]
OTHERS: list[Any] = [None, True, "1", 1.5, (), (1,), (1, 2), (1, 2, 3, 4), [], {}, object(), b"x"]


def array(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Numbers of a layout that is usual for a tensor."""
    made = np.array([rng.gauss(0, 1) for _ in range(int(np.prod(shape)))], dtype).reshape(shape)
    if len(shape) == 4 and rng.random() < 0.5:
        return np.ascontiguousarray(made.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return made


def odd(given: Any) -> Any:
    """An array like the given one, but of another type, shape or layout."""
    if not isinstance(given, np.ndarray):
        return rng.choice([np.zeros(rng.randrange(4)), np.zeros((2, 2), np.float32), np.zeros((1, 4, 4, 4))])
    ways: list[Callable[[], np.ndarray]] = [
        lambda: given.astype(rng.choice([np.float64, np.float16, np.int32, np.complex64, ">f4", bool])),
        lambda: given[..., :0],
        lambda: given[:0],
        lambda: given[..., ::-1],
        lambda: given[None],
        lambda: given.ravel()[:: rng.choice([1, 2])],
        lambda: np.broadcast_to(given.ravel()[:1], given.shape) if given.size else given,
        lambda: (
            np.frombuffer(b"\0" * (given.size * 4 + 1), np.uint8)[1:].view(np.float32)[: given.size].reshape(given.shape)
        ),
        lambda: as_strided(given.ravel()[:1], (1,) * given.ndim, (2**61,) * given.ndim) if given.size else given,
        lambda: np.full_like(given, rng.choice([np.nan, np.inf, 1e38])),
    ]
    return rng.choice(ways)()


def broken(given: Any) -> Any:
    """Another value in the place of an argument."""
    if isinstance(given, tuple) and given and rng.random() < 0.7:
        at = rng.randrange(len(given))
        other = broken(given[at]) if isinstance(given[at], tuple) else rng.choice(NUMBERS)
        return (*given[:at], other, *given[at + 1 :])
    if isinstance(given, np.ndarray) and rng.random() < 0.8:
        return odd(given)
    if isinstance(given, str) and rng.random() < 0.8:
        return rng.choice(TEXTS)
    if isinstance(given, float) and rng.random() < 0.8:
        return rng.choice(FLOATS)
    if isinstance(given, int) and rng.random() < 0.8:
        return rng.choice(NUMBERS)
    return rng.choice([odd(given), rng.choice(NUMBERS), rng.choice(OTHERS)])


def layer() -> dict[str, Any]:
    """A convolution, its tensors and rule."""
    dtype = rng.choice([np.float32, np.float64])
    winograd = rng.random() < 0.3
    kernel = (3, 3) if winograd else (rng.randrange(1, 4), rng.randrange(1, 4))
    stride, dilation = ((1, 1), (1, 1)) if winograd else [(rng.randrange(1, 3), rng.randrange(1, 3)) for _ in range(2)]
    groups = 1 if winograd else rng.choice([1, 1, 2])
    inputs, outputs = (16, 32) if winograd else (groups * rng.randrange(1, 5), groups * rng.randrange(1, 12))
    before, n = (rng.randrange(3), rng.randrange(3)), rng.randrange(3)
    size = [rng.randrange(5, 10) for _ in range(2)]
    span = [s + 2 * b - (k - 1) * d - 1 for s, b, k, d in zip(size, before, kernel, dilation, strict=True)]
    out = [v // s + 1 for v, s in zip(span, stride, strict=True)]
    numbers = core.materialized_size(outputs, inputs // groups * kernel[0] * kernel[1], groups)
    return {
        "a": array((n, inputs, *size), dtype),
        "g": array((n, outputs, *out), dtype),
        "x": array((n, inputs, *size), dtype),
        "out": array((n, outputs, *out), dtype),
        "weight": np.ascontiguousarray(array((outputs, inputs // groups, *kernel), dtype)),
        "scales": np.ones(n, dtype),
        "materialized": np.zeros((n, numbers), dtype),
        "window": (kernel, stride, before, dilation, groups),
        "map": rng.choice(["square", "adaptive", "absolute", "power"]),
        "q": 2.5,
        "threads": rng.randrange(1, 4),
        "isa": "",
    }


def of_layer(*names: str) -> dict[str, Any]:
    drawn = layer()
    return {name: drawn[name] for name in (*names, "window", "map", "q", "threads", "isa")}


def winograd() -> dict[str, Any]:
    dtype, back = rng.choice([np.float32, np.float64]), rng.random() < 0.5
    c, o = rng.choice([16, 32]), rng.choice([16, 48])
    x, out = (
        array((2, n, 6, 6), dtype).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for n in ((o, c) if back else (c, o))
    )
    weight = np.zeros((o, c, 3, 3), dtype)
    return {
        "x": x,
        "weight": weight,
        "out": out,
        "before": (1, 1),
        "backward": back,
        "threads": rng.randrange(1, 4),
        "isa": "",
    }


def depthwise(*names: str) -> dict[str, Any]:
    """Arrays are contiguous, channels last."""
    dtype, n, channels = rng.choice([np.float32, np.float64]), rng.randrange(3), rng.randrange(1, 20)
    kernel = [rng.choice([1, 2, 3, 4, 5, 6, 7, 9]) for _ in range(2)]
    shapes = [(n, 9, 8, channels), (n, *kernel, channels), (n, rng.randrange(1, 9), rng.randrange(1, 9), channels)]
    arrays = [np.ascontiguousarray(array(shape, dtype)) for shape in shapes]
    pairs = {name: (rng.randrange(1, 3), rng.randrange(1, 3)) for name in ("stride", "before", "dilation")}
    return {**dict(zip(names, arrays, strict=True)), **pairs, "threads": rng.randrange(1, 4), "isa": ""}


def normalization(*names: str) -> dict[str, Any]:
    """The arrays of these names, of N samples, T rows and D columns."""
    dtype, n, rows, width = rng.choice([np.float32, np.float64]), *(rng.randrange(20) for _ in range(3))
    shapes = {"weight": (n, width), "bias": (n, width), "mean": (n, rows), "rstd": (n, rows), "sums": (n, 2, width)}
    arrays = {name: array(shapes.get(name, (n, rows, width)), dtype) for name in names}
    return {**arrays, "threads": rng.randrange(1, 4), "isa": ""}


def diagonal() -> dict[str, Any]:
    """Addresses stay those of arrays large enough, or become 0 or odd: others cannot be checked."""
    dtype = np.float32
    pixels, out = np.zeros((2, 16, 16), dtype), np.zeros((2, 256, 256), dtype)
    keep.extend([pixels, out])
    del keep[:-4]
    return {
        "pixels": pixels.ctypes.data, "out": out.ctypes.data, "batch": 2, "shape": (4, 4, 2, 2), "kernel": (3, 3),
        "pad": (0, 0), "dilation": (1, 1), "threads": 2, "isa": "",
    }  # fmt: skip


keep: list[np.ndarray] = []


def kmeans() -> dict[str, Any]:
    dtype, n, dim = rng.choice([np.float32, np.float64]), rng.randrange(1, 40), rng.choice([1, 1, 3, 17])
    left = rng.choice([None, None, array((n, 3), dtype)])
    return {
        "x": array((n, dim), dtype), "k": rng.randrange(1, n + 1), "first": rng.choice(["random", "argmax"]),
        "key": rng.randrange(2**64),
        "given": np.array([rng.random() for _ in range(rng.randrange(3))]), "left": left,
        "weights": rng.choice([None, np.ones(n)]), "initial": rng.choice([[], [0]]),
        "algorithm": rng.choice(["auto", "plain", "rejection", "sorted"]), "threads": rng.randrange(1, 4), "isa": "",
        "refresh_every": rng.choice([-1, 0, 3]), "potential": rng.random() < 0.5,
    }  # fmt: skip


def guard() -> dict[str, Any]:
    """A context manager's two functions, which may raise; what the second returns is raised or noted."""

    def fails() -> None:
        raise ValueError("drawn")

    return {
        "enter": rng.choice([lambda: 1, lambda: 1, fails]),
        "leave": rng.choice([lambda: None, lambda: None, lambda: ValueError("returned"), fails]),
        "apart": rng.random() < 0.5,
    }


CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "Uninterrupted": guard,
    "tile_norm": lambda: of_layer("a", "g", "weight", *rng.choice([(), ("materialized",)])),
    "tile_apply": lambda: of_layer("a", "g", "x", "weight", "scales", "out"),
    "apply_materialized": lambda: of_layer("materialized", "x", "weight", "scales", "out"),
    "winograd_conv": winograd,
    "winograd_channels_fit": lambda: {"inputs": 16, "outputs": 48},
    "depthwise_apply": lambda: depthwise("x", "weight", "out"),
    "depthwise_gradient": lambda: depthwise("x", "gradient", "g"),
    "depthwise_fits": lambda: {"kernel_width": 3},
    "layer_norm": lambda: {**normalization("x", "weight", "bias", "y", "mean", "rstd"), "eps": 1e-5},
    "layer_norm_back": lambda: normalization("x", "g", "weight", "mean", "rstd", "gx", "sums"),
    "materialized_size": lambda: {"outputs": 4, "inputs": 9, "groups": 2},
    "diagonal_sums_f32": diagonal,
    "kmeans_plusplus": kmeans,
    "choose_algorithm": lambda: {"rows": 9, "width": 2, "k": 3, "factored": False},
    "built_isas": dict,
    "usable_isas": dict,
    "use_torch_threads": lambda: {"library": rng.choice(["", "/nowhere.so", "libc.so.6"])},
}
UNTOUCHED = {"keep_freed_memory", "diagonal_sums_f64"}  # the process's allocator; the twin of diagonal_sums_f32


def spoil_addresses(arguments: dict[str, Any]) -> None:
    """Replaces arguments of diagonal sums by what no array of theirs could have, or by other valid ones."""
    name = rng.choice(list(arguments))
    if name in ("pixels", "out"):
        arguments[name] = rng.choice([0, 1, 2**64 - 1, -1, None, "x"])
    elif name in ("batch", "shape"):  # nothing that would read beyond the arrays
        arguments[name] = rng.choice([0, -1, 2**62, 2**63, None]) if name == "batch" else rng.choice(
            [(4, 4, 2, -2), (-1, 4, 2, 2), (2**31, 2**31, 2, 2), (2**62, 4, 1, 1), (0, 0, 0, 0), (4, 4), None]
        )  # fmt: skip
    else:
        arguments[name] = broken(arguments[name])


def main(draws: int) -> None:
    bound = {name for name in dir(core) if callable(getattr(core, name)) and not name.startswith("_")}
    missing = bound - set(CALLS) - UNTOUCHED
    if missing:
        raise SystemExit(f"no draws for {sorted(missing)}")
    counts: Counter[str] = Counter()
    for number in range(draws):
        name = rng.choice(list(CALLS))
        arguments = CALLS[name]()
        for _ in range(rng.choice([0, 1, 1, 2])):
            if name == "diagonal_sums_f32":
                spoil_addresses(arguments)
            elif arguments:
                at = rng.choice(list(arguments))
                arguments[at] = broken(arguments[at])
        if isinstance(arguments.get("threads"), int):
            arguments["threads"] = max(min(arguments["threads"], 4), -(2**31))
        try:
            made = getattr(core, name)(**arguments)
            if name == "Uninterrupted":
                with made:
                    pass
        except EXPECTED:
            counts["refused"] += 1
        except BaseException:
            print(number, name, arguments, file=sys.stderr)
            raise
        else:
            counts["done"] += 1
    print(counts["done"], counts["refused"])


if __name__ == "__main__":
    main(int(sys.argv[2]))
