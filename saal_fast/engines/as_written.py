"""A model's code as engines' passes run it: as it is written, without what others have put around it for speed or memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..models.alone import alone
from ..models.checkpoints import without_checkpoints
from ..models.hooks import without_measuring_hooks
from ..models.state import disable_compiled
from .functions import any_function


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Within it, compiled parts run eagerly, checkpointed functions plainly, and `vmap` runs functions of any class.

    The model itself can't be called in another thread (`alone`).
    """
    with disable_compiled(), without_checkpoints(), any_function(), without_measuring_hooks(model), alone(model):
        yield
