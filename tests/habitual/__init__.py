"""Models with habits: what they do beside reading inputs and registered parameters.

`make(name)` gives a model, `MODELS` has them all. A model is a class decorated `@case` in one of this folder's files.
"""

from . import reached, unseen, kept, changed  # noqa: F401, I001 - each adds its models
from .changed import Appends, Counts, MovingAverage
from .registry import AUTOGRAD, BY_REFERENCE, ENGINES, MODELS, Base, make, pool

__all__ = [
    "AUTOGRAD",
    "BY_REFERENCE",
    "BY_TWO_RULES",
    "ENGINES",
    "MODELS",
    "Appends",
    "Base",
    "Counts",
    "MovingAverage",
    "make",
    "pool",
]

BY_TWO_RULES = ("Closure", "KeptDetached", "Scripted", "OwnFunction", "MadeByEval", "Appends")  # quickly; one of each kind
