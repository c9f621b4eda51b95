"""Which sample of a batch a model's error comes from."""

from __future__ import annotations

from .._utils.failures import is_from_handler
from .._utils.notes import thawed
from ..engines import Problem
from ..models import memory
from ..pools import Batch


def first_failing(problem: Problem, batch: Batch, error: Exception) -> int | None:
    """Row of the first sample on which the model or its task, run plainly, raises an error of that class.

    It costs two forward passes of the batch, one of them in parts.

    Args:
        problem: what is scored.
        batch: what it was scored on.
        error: what was raised.

    Returns:
        The row; None where no sample by itself raises it, or where a device may have been lost with it.
    """
    if batch.size == 1:
        return 0
    lost = isinstance(error, RuntimeError) and problem.device.type != "cpu"
    if lost or isinstance(error, TimeoutError) or memory.exhausted(error):
        return None
    begin, end = 0, batch.size
    if not _fails(problem, batch, error):
        return None
    while end - begin > 1:
        middle = (begin + end) // 2
        if _fails(problem, batch.slice(begin, middle), error):
            end = middle
        else:
            begin = middle
    return begin if _fails(problem, batch.slice(begin, end), error) else None


def _fails(problem: Problem, batch: Batch, error: Exception) -> bool:
    task = problem.task
    try:
        output = problem.output(problem.recorded(), batch)
        label = task.pseudo_label(output) if batch.labels is None else batch.labels
        task.loss(output, label)
    except Exception as again:
        if is_from_handler(again):
            raise
        return type(thawed(again)) is type(error)
    return False
