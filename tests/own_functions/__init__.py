"""Functions with a backward pass of their own, as people write them, each in a small model.

`make(name)` gives the model, `NAMES` lists all. A function is one decorated `@case` in one of this folder's files.
"""

from . import slopes, contexts, new_form, beyond_vmap  # noqa: F401, I001 - each adds its functions
from .registry import FUNCTIONS, Net, make, pool

__all__ = ["NAMES", "Net", "make", "pool"]

NAMES = tuple(FUNCTIONS)
