"""A batch's work, captured once a shape and replayed for every further batch of it: a CUDA graph, or a trace on a CPU.

An engine queues a thousand and more small kernels a batch, each by a few layers of Python; a GPU that does a batch in less
time than Python takes to queue it would wait. A captured batch is queued by one call.

    a shape's first batch    runs eagerly: what is compiled, planned or allocated once is done then
    its second               runs eagerly under `CaptureCheck`, which refuses what cannot be captured; then it is captured
    its third                runs eagerly too, and the replay's results are compared with the eager ones: all of them, on
                             inputs other than the captured ones, so that a recording that gives its own results for ever is
                             found out; a batch of the same results proves nothing, and the next one is compared as well
    all further ones         are replayed on memory of the capture's own: inputs are copied in, results are copied out

A shape seen once (such as the last, smaller batch) is never captured. If a model cannot be captured, because it asks for
values or sends something to the device itself, the reason is logged and scoring continues without captures. On a CPU a
capture (`cpu_trace.py`) takes as long as some sixty batches of a small network, and so begins with a shape's hundredth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..._utils.failures import foreign_failure
from ..._utils.logs import log
from ...models import memory
from ...pools import Batch
from ..problem import Engine, Result
from .cpu_trace import cpu_trace
from .cuda_graph import Work, cuda_graph
from .randomness import may_draw

MAX_GRAPHS = 8
"""Shapes that are captured: each keeps the memory of a batch."""

CPU_TRACE_AFTER = 100
"""The batch of a shape that is captured on a CPU."""

NUMBERS = ("perturbed_loss", "loss", "grad_norm")
"""Fields of a result one of which another batch must change, to prove a recording."""

T = TypeVar("T")
Capture = Callable[[Work, list[Tensor]], Work]


class Recording(NamedTuple):
    """A captured batch that has not proved itself yet.

    Attributes:
        replay: gives the results of inputs.
        kept: what must live as long as it.
        result: the captured batch's own results.
    """

    replay: Work
    kept: list[Tensor]
    result: Result


class CannotCapture(Exception):  # noqa: N818 - says what a capture cannot hold; scoring then goes on without one
    """Work that waits for the device, or crosses to it."""


class CaptureCheck(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own
    """Runs work, and raises `CannotCapture` at what a CUDA graph cannot hold.

    Attributes:
        outside: tensors that the work reads and has not made, by address. A graph reads them where they lay when it was
            captured; who keeps it must keep them, even where the model itself replaces them (a cache that grows).
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
            raise CannotCapture(f"{func.name()} makes the host wait for values on the device")
        if may_draw(func, args, kwargs or {}):
            raise CannotCapture(f"{func.name()} draws random numbers, which both passes of a batch must see")
        given = list(_strided((args, kwargs)))
        out = func(*args, **(kwargs or {}))
        made = list(_strided(out))
        # a number may come from the host, beside other tensors
        devices = {t.device.type for t in (*given, *made) if t.ndim or len(made) == len(given) == 1}
        if len(devices) > 1:
            raise CannotCapture(f"{func.name()} copies from {' to '.join(sorted(devices))}")
        for t in given:
            if (address := t.untyped_storage().data_ptr()) not in self.made:
                self.outside.setdefault(address, t)
        self.made |= {t.untyped_storage().data_ptr() for t in made} - self.outside.keys()
        return out


class CapturedEngine:
    """An engine whose batches are captured and replayed; see above.

    Args:
        engine: what is captured.
        capture: makes of `work` and example inputs a function of inputs that replays it.
        at: which batch of a shape is captured.
    """

    def __init__(self, engine: Engine, capture: Capture, at: int = 2) -> None:
        self.engine, self.capture, self.at = engine, capture, at
        self.seen: Counter[Hashable] = Counter()
        self.replays: dict[Hashable, tuple[Work, list[Tensor]]] = {}  # with what must be kept
        self.unproved: dict[Hashable, Recording] = {}
        self.full = False  # whether a shape went without a capture because there were enough
        self.refused: str | None = None  # why nothing is captured any more

    def __call__(self, batch: Batch) -> Result:
        """Scores a batch; see `Engine`."""
        leaves, spec = tree_flatten((batch.args, batch.kwargs, batch.labels))
        key = (spec, *((t.shape, t.dtype) if isinstance(t, Tensor) else None for t in leaves))
        if key in self.replays:
            result: Result = self.replays[key][0](leaves)
            return result
        if key in self.unproved:
            return self._prove(key, leaves, batch)
        self.seen[key] += 1
        tensors = all(isinstance(t, Tensor) for t in leaves if t is not None)
        if self.refused is None and self.seen[key] == self.at and tensors and self._has_room():
            return self._capture(key, batch)
        return self._eager(batch)

    def sample_bytes(self, example: Batch) -> int:
        return self.engine.sample_bytes(example)

    def _capture(self, key: Hashable, batch: Batch) -> Result:
        """Scores a batch, and captures its shape."""
        leaves, spec = tree_flatten((batch.args, batch.kwargs, batch.labels))
        places = [i for i, t in enumerate(leaves) if t is not None]

        def work(inputs: list[Tensor]) -> Result:
            filled: list[Any] = [None] * len(leaves)
            for place, t in zip(places, inputs, strict=True):
                filled[place] = t
            args, kwargs, labels = tree_unflatten(filled, spec)
            return self.engine(Batch(args, kwargs, batch.size, labels=labels))

        inputs = [leaves[i] for i in places]

        def checked() -> tuple[Result, list[Tensor]]:
            with CaptureCheck() as check:
                return work(inputs), list(check.outside.values())

        found = self._try(checked)
        if found is None:
            return self._eager(batch)
        result, kept = found
        replay = self._try(lambda: self.capture(work, inputs))
        if replay is not None:
            self.unproved[key] = Recording(lambda given: replay([given[i] for i in places]), kept, result)
        return result

    def _prove(self, key: Hashable, leaves: list[Any], batch: Batch) -> Result:
        """Scores a batch, and trusts the shape's recording from here on if it gives the same."""
        result = self._eager(batch)
        if (recording := self.unproved.get(key)) is None:  # memory ran out
            return result
        replayed: Result | None = self._try(lambda: recording.replay(leaves))
        differs = None if replayed is None else difference(replayed, result)
        if replayed is None or differs is not None:
            del self.unproved[key]
        if differs is not None:
            self._refuse(CannotCapture(f"a replay gives another {differs} than the batch itself"))
        elif replayed is not None and difference(recording.result, result) in NUMBERS:
            del self.unproved[key]
            self.replays[key] = recording.replay, recording.kept
        return result

    def _try(self, work: Callable[[], T]) -> T | None:
        """What `work` gives; None where it cannot be captured, which is logged. What comes from outside is raised."""
        try:
            return work()
        except CannotCapture as error:
            self._refuse(error)
        except Exception as error:
            if not memory.exhausted(error) and (foreign := foreign_failure(error, work)) is not None:
                raise foreign from None
            self._refuse(error)
        return None

    def _has_room(self) -> bool:
        """Whether one more shape is captured; it is logged, once, that one is not."""
        room = len(self.replays) + len(self.unproved) < MAX_GRAPHS
        if not room and not self.full:
            self.full = True
            log.info("batches of %d shapes are captured, and no more: those of further shapes run without", MAX_GRAPHS)
        return room

    def _refuse(self, error: BaseException) -> None:
        while error.__context__ is not None:  # a capture that breaks off raises an error of its own over the cause
            error = error.__context__
        first = str(error).strip().partition("\n")[0]
        self.refused = f"{type(error).__name__}: {first}"
        log.info("batches are not captured: %s", self.refused)

    def _eager(self, batch: Batch) -> Result:
        """Scores a batch without a capture; where memory runs out, also without the captures that there are."""
        try:
            return self.engine(batch)
        except Exception as error:
            if not ((self.replays or self.unproved) and memory.exhausted(error)):
                raise
            self._refuse(error)
        self.replays.clear()
        self.unproved.clear()
        torch.cuda.empty_cache()
        return self.engine(batch)


def captured(engine: Engine, device: torch.device) -> Engine:
    """The engine, its batches captured where the device is one for which a capture is known."""
    if device.type == "cuda":
        return CapturedEngine(engine, cuda_graph)
    return CapturedEngine(engine, cpu_trace, CPU_TRACE_AFTER) if device.type == "cpu" else engine


def difference(one: Result, other: Result) -> str | None:
    """The first field in which two results differ, rounding aside; None where they agree."""
    for name, a, b in zip(Result._fields, one, other, strict=True):
        mine, specs = tree_flatten(a)
        others, spec = tree_flatten(b)
        if specs != spec or not all(map(_agree, mine, others)):
            return name
    return None


def _agree(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def _strided(tree: Any) -> Iterator[Tensor]:
    return (t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.layout == torch.strided)
