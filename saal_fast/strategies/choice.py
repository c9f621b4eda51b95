"""What strategies share in choosing: checks of a request, the samples to choose from, the k largest scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._utils.checks import check_batch_size, check_choice, check_whole
from .._utils.rng import check_generator
from ..pools import Stream
from ..scoring.nonfinite import NonFiniteError
from .protocol import OnNonFinite, Selection


def check_request(k: int, pool: Any, generator: Any) -> None:
    """Raises before any work is done where `select` could not answer.

    Raises:
        TypeError: k is not a whole number, or generator is not a generator.
        ValueError: k < 1, or more than the pool's samples (where their number is known).
    """
    check_generator(generator)
    check_whole("k", k, 1)
    length = Stream(pool, torch.device("cpu")).length
    if length is not None and k > length:
        raise ValueError(f"expected k <= {length}, the size of the pool; got k={k}")


def check_options(batch_size: Any, on_nonfinite: Any) -> None:
    """Raises ValueError unless both options, which most strategies have, are valid."""
    check_batch_size(batch_size)
    check_choice("on_nonfinite", on_nonfinite, ("raise", "keep"))


def candidates(finite: Tensor, k: int, on_nonfinite: OnNonFinite) -> Tensor:
    """Positions of the finite samples, which k will be chosen from.

    Args:
        finite: which samples' outputs hold neither NaN nor inf; bool [N].
        k: how many will be chosen.
        on_nonfinite: "raise" for an error where other samples exist, or "keep" to pass them over.

    Returns:
        int64 [M], k <= M <= N.

    Raises:
        NonFiniteError: not all samples are finite, on "raise"; the message names the first.
        ValueError: fewer than k remain.
    """
    bad = (~finite).nonzero()[:, 0].tolist()
    if bad and on_nonfinite == "raise":
        first = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise NonFiniteError(
            f"expected finite outputs, got NaN or inf for {len(bad)} of the pool's {len(finite)} samples: {first}. "
            'on_nonfinite="keep" keeps them and never picks one'
        )
    good = finite.nonzero()[:, 0]
    if k > len(good):
        what = "whose outputs are finite" if bad else "the size of the pool"
        raise ValueError(f"expected k <= {len(good)}, {what}; got k={k}")
    return good


def largest(scores: Tensor, k: int, on_nonfinite: OnNonFinite = "raise") -> Selection:
    """Chooses the k largest finite scores of [N]; of equal ones the earlier sample. Errors are those of `candidates`."""
    good = candidates(scores.isfinite(), k, on_nonfinite)
    order = scores[good].argsort(descending=True, stable=True)[:k]
    return Selection(good[order], scores.float())
