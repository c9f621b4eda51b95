"""Small models to score, a function each: what users bring, and what has broken engines before.

`build(name)` gives a `Case`; `NAMES` lists all. Every weight, bias and statistic is random, so that each of them matters.
"""

from . import linear, products, convolutions, networks, attention, text, partial  # noqa: F401, I001 - each adds its cases, in this order
from .cases import CASES, CLASSES, SAMPLES, Case, Function, build, factor_everything
from .products import SPELLINGS

__all__ = ["CLASSES", "NAMES", "SAMPLES", "SPELLINGS", "Case", "Function", "build", "factor_everything"]

NAMES = tuple(CASES)
