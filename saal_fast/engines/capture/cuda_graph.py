"""A batch's work on CUDA as a graph: a thousand and more kernels, queued by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Work = Callable[[list[Tensor]], Any]


def cuda_graph(work: Work, inputs: list[Tensor]) -> Work:
    """A function that copies inputs into place, replays `work` on the current stream, and copies its results out."""
    static = [t.clone() for t in inputs]
    device = static[0].device
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own
    # Threads other than this one, such as a DataLoader's, may go on to pin memory meanwhile.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        results = work(static)

    def replay(given: list[Tensor]) -> Any:
        for t, new in zip(static, given, strict=True):
            t.copy_(new)
        graph.replay()
        return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, results)

    return replay
