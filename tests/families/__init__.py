"""Families of models that people bring, each with the engine it must run by: a new fallback fails `test_families.py`.

`build(name)` gives a `Family`; `NAMES` lists all. A family is a function decorated `@family` in one of this folder's files.
"""

from . import checkpointing, detached, functions, graphs, masks, questions, texts, writes  # noqa: F401 - each adds its families
from .family import FAMILIES, Family, build, family, slow

__all__ = ["NAMES", "Family", "build", "family", "slow"]

NAMES = tuple(FAMILIES)
"""All families, in the order of the files."""
