"""A batch's work, recorded once a shape and replayed for every further batch of it: a CUDA graph, or a trace on a CPU.

An engine queues a thousand and more small kernels a batch, each by a few layers of Python; a GPU that does a batch in less
time than Python takes to queue it would wait. A graph is queued by one call.

    a shape's first batch    runs as ever: what is compiled, planned or allocated once is done then
    its second               is rehearsed: it runs under `Rehearsal`, which refuses what no graph can hold; then it is
                             recorded, and the replay's results are compared with the rehearsal's
    all further ones         are replayed on memory of the graph's own: inputs are copied in, results are copied out

So a shape that comes once, such as the odd last batch, costs nothing. Where a model cannot be recorded, since it asks for
values or sends something to the device itself, the reason is logged and all runs as ever. On a CPU a recording (`traces.py`)
takes as long as some sixty batches of a small network, and so begins with a shape's hundredth.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ...models import memory
from ...pools import Batch
from .. import Engine, Result
from .cpu_trace import traced

log = logging.getLogger("saal_fast")

MOST = 8
"""Shapes that are recorded: each keeps the memory of a batch."""

AFTER_ON_CPU = 100
"""Batch of a shape that is recorded on a CPU."""

Work = Callable[[list[Tensor]], Any]
Recorder = Callable[[Work, list[Tensor]], Work]


class CannotRecord(Exception):  # noqa: N818 - says what a graph cannot hold; met by running without one
    """Work that waits for the device, or crosses to it."""


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Runs work, and raises `CannotRecord` at what a CUDA graph cannot hold.

    Attributes:
        outside: tensors that the work reads and has not made, by address. A graph reads them where they lay when it was
            recorded; who keeps it must keep them, even where the model itself replaces them (a cache that grows).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's own
        self.outside: dict[int, Tensor] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operation, unless the host would wait for its answer, or for the size of its output."""
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
            raise CannotRecord(f"{func.name()} makes the host wait for values on the device")
        given = list(_strided((args, kwargs)))
        out = func(*args, **(kwargs or {}))
        made = list(_strided(out))
        devices = {
            t.device.type for t in (*given, *made) if t.ndim or len(made) == len(given) == 1
        }  # numbers may come along
        if len(devices) > 1:
            raise CannotRecord(f"{func.name()} copies from {' to '.join(sorted(devices))}")
        for t in given:
            if (address := t.untyped_storage().data_ptr()) not in self.made:
                self.outside.setdefault(address, t)
        self.made |= {t.untyped_storage().data_ptr() for t in made} - self.outside.keys()
        return out


class Graphed:
    """An engine whose batches are recorded and replayed; see above.

    Args:
        engine: what is recorded.
        record: makes of `work` and example inputs a function of inputs that replays it.
        at: which batch of a shape is recorded.
    """

    def __init__(self, engine: Engine, record: Recorder, at: int = 2) -> None:
        self.engine, self.record, self.at = engine, record, at
        self.seen: Counter[Hashable] = Counter()
        self.replays: dict[Hashable, tuple[Work, list[Tensor]]] = {}  # with what must be kept
        self.refused: str | None = None  # why nothing is recorded any more

    def __call__(self, batch: Batch, labels: Any | None) -> Result:
        """Score a batch; see `Engine`."""
        leaves, spec = tree_flatten((batch.args, batch.kwargs, labels))
        key = (spec, *((t.shape, t.dtype) if isinstance(t, Tensor) else None for t in leaves))
        if key in self.replays:
            result: Result = self.replays[key][0](leaves)
            return result
        self.seen[key] += 1
        tensors = all(isinstance(t, Tensor) for t in leaves if t is not None)
        if self.refused is None and self.seen[key] == self.at and tensors and len(self.replays) < MOST:
            return self._first_recorded(key, batch, labels)
        return self._eager(batch, labels)

    def sample_bytes(self, example: Batch) -> int:
        return self.engine.sample_bytes(example)

    def _first_recorded(self, key: Hashable, batch: Batch, labels: Any | None) -> Result:
        """Scores a batch, and records its shape."""
        leaves, spec = tree_flatten((batch.args, batch.kwargs, labels))
        places = [i for i, t in enumerate(leaves) if t is not None]

        def work(inputs: list[Tensor]) -> Result:
            filled: list[Any] = [None] * len(leaves)
            for place, t in zip(places, inputs, strict=True):
                filled[place] = t
            args, kwargs, given = tree_unflatten(filled, spec)
            return self.engine(Batch(args, kwargs, batch.size, 0), given)

        inputs = [leaves[i] for i in places]
        result: Result | None = None
        try:
            with Rehearsal() as rehearsal:
                result = work(inputs)
            replay = self.record(work, inputs)
            _check_agreement(replay(inputs), result)
        except Exception as error:
            self._refuse(error)
            return self._eager(batch, labels) if result is None else result
        self.replays[key] = lambda given: replay([given[i] for i in places]), list(rehearsal.outside.values())
        return result

    def _refuse(self, error: BaseException) -> None:
        while error.__context__ is not None:  # a recording that broke off is ended by an error of its own
            error = error.__context__
        first = str(error).strip().partition("\n")[0]
        self.refused = f"{type(error).__name__}: {first}"
        log.info("batches are not recorded: %s", self.refused)

    def _eager(self, batch: Batch, labels: Any | None) -> Result:
        """Scores a batch without a graph; where memory runs out, also without the graphs that there are."""
        try:
            return self.engine(batch, labels)
        except Exception as error:
            if not (self.replays and memory.exhausted(error)):
                raise
            self._refuse(error)
        self.replays.clear()
        torch.cuda.empty_cache()
        return self.engine(batch, labels)


def graphed(engine: Engine, device: torch.device) -> Engine:
    """The engine, its work recorded where the device is one for which that is known how."""
    if device.type == "cuda":
        return Graphed(engine, recorded)
    return Graphed(engine, traced, AFTER_ON_CPU) if device.type == "cpu" else engine


def _check_agreement(replayed: Result, result: Result) -> None:
    """Raises `CannotRecord` where a replay gives other numbers than the work itself; rounding aside."""
    for name in ("perturbed_loss", "loss", "grad_norm"):
        got, want = getattr(replayed, name), getattr(result, name)
        if not torch.allclose(got, want, rtol=1e-3, atol=1e-6, equal_nan=True):
            raise CannotRecord(f"a replay gives another {name} than the batch itself")


def recorded(work: Work, inputs: list[Tensor]) -> Work:
    """A function that copies inputs into place, replays `work` on the current stream, and copies its results out."""
    held = [t.clone() for t in inputs]
    device = held[0].device
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
    # Threads other than this one, such as a DataLoader's, may go on to pin memory meanwhile.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        results = work(held)

    def replay(given: list[Tensor]) -> Any:
        for t, new in zip(held, given, strict=True):
            t.copy_(new)
        graph.replay()
        return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, results)

    return replay


def _strided(nest: Any) -> Iterator[Tensor]:
    return (t for t in tree_leaves(nest) if isinstance(t, Tensor) and t.layout == torch.strided)
