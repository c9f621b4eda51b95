"""Which operations draw random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def may_draw(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation may draw random numbers: torch marks it so, and it is no attention without dropout."""
    if torch.Tag.nondeterministic_seeded not in getattr(operation, "tags", ()):
        return False
    names = [argument.name for argument in operation._schema.arguments]
    if "dropout_p" not in names:
        return True
    place = names.index("dropout_p")
    given = args[place] if len(args) > place else kwargs.get("dropout_p", operation._schema.arguments[place].default_value)
    return bool(given != 0)
