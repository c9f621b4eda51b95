"""`select`: which samples to label next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from .._utils.checks import is_whole
from ..kmeans import kmeans_plusplus
from ..pools import Stream
from ..scoring import Options, Scores, score
from .gradient_embeddings import gradient_factors, residuals

if TYPE_CHECKING:
    from typing_extensions import Unpack


def select(
    model: nn.Module,
    pool: Any,
    k: int,
    rho: float = 0.05,
    *,
    diversity: Literal["kmeans++", "badge"] | None = None,
    seed: int | torch.Generator | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Picks the k samples to label next (Algorithm 1, line 7).

    Args:
        model: as for `score`.
        pool: as for `score`.
        k: how many; 1 <= k <= N.
        rho: radius ρ of the perturbation.
        diversity: None for the k largest scores (ties: the earlier sample). "kmeans++" for D² sampling over the scores as a
            one-dimensional input, the largest first (Section 4.1, "Baselines"). "badge" for D² sampling over the gradients
            `(softmax(z) − onehot(ŷ)) ⊗ h` of the last `nn.Linear` with input h (BADGE, arXiv:1906.03671, Section 3, kept
            as factors), each D² times the sample's perturbed loss (Eq. 6), the largest weighted norm first: far apart, as
            BADGE has it, and sharp, as SAAL has it. It reads the pool a second time, in the model's own precision, and
            takes no other `task` or `objective` than the default. The weighting is this library's; neither paper has it.
        seed: of the D² sampling, a number or a generator; None for fresh entropy.
        **options: of `score`.

    Returns:
        Positions in the pool, int64 [k], the best first. With a diversity in the order drawn. Samples whose score is not
        finite (`on_nonfinite="keep"`) are never picked.

    Raises:
        TypeError: k is no whole number.
        ValueError: k < 1, or more than the samples with a finite score; for "badge", the last `nn.Linear` does not make
            the logits, or the pool changes its order; and as `score`.
    """
    return select_scored(model, pool, k, rho, diversity=diversity, seed=seed, **options)[0]


def select_scored(
    model: nn.Module,
    pool: Any,
    k: int,
    rho: float = 0.05,
    *,
    diversity: Literal["kmeans++", "badge"] | None = None,
    seed: int | torch.Generator | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]:
    """As `select`, and beside the positions the scores [N] they were picked by."""
    if not is_whole(k):
        raise TypeError(f"expected k to be a whole number, got {k!r} ({type(k).__name__})")
    if k < 1:
        raise ValueError(f"expected k >= 1, got k={k}")
    if diversity not in (None, "kmeans++", "badge"):
        raise ValueError(f'expected diversity to be None, "kmeans++" or "badge", got {diversity!r}')
    if "details" in options:
        raise TypeError("expected options of score but details: select gives positions; call score for details")
    if diversity == "badge" and (options.get("objective", "max") != "max" or options.get("task") is not None):
        raise ValueError('expected objective="max" and task=None with diversity="badge": it weighs a class\'s gradients')
    if diversity is not None:  # a seed that is none, or a C++ core that was not built, shows before any work is done
        kmeans_plusplus(torch.zeros(1), 1, seed=None if isinstance(seed, torch.Generator) else seed)
    length = Stream(pool, torch.device("cpu")).length
    if length is not None and k > length:
        raise ValueError(f"expected k <= {length}, the size of the pool; got k={k}")

    scored = score(model, pool, rho, **options, details=True)
    scores = scored.by(options.get("objective", "max"))
    candidates = (scored.finite & scores.isfinite()).nonzero()[:, 0]
    if k > len(candidates):
        finite = "" if len(candidates) == len(scores) else " with a finite score"
        raise ValueError(f"expected k <= {len(candidates)}, the samples of the pool{finite}; got k={k}")
    tolerance = LOSS_TOLERANCE if options.get("precision") is None else HALF_TOLERANCE
    picks = _pick(model, pool, scored, candidates, scores[candidates], k, diversity, seed, tolerance)
    return candidates[picks], scores


def pick(
    model: nn.Module,
    pool: Any,
    scored: Scores,
    k: int,
    *,
    diversity: Literal["kmeans++", "badge"] | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """What `select` answers, from scores at hand: of one `score(model, pool, details=True)`, all of them finite."""
    everyone = torch.arange(len(scored), device=scored.perturbed_loss.device)
    return _pick(model, pool, scored, everyone, scored.perturbed_loss, k, diversity, seed, LOSS_TOLERANCE)


def _pick(
    model: nn.Module,
    pool: Any,
    scored: Scores,
    candidates: Tensor,
    values: Tensor,
    k: int,
    diversity: Literal["kmeans++", "badge"] | None,
    seed: int | torch.Generator | None,
    tolerance: dict[str, float],
) -> Tensor:
    """Places of k picks among the candidates, of scores `values`."""
    if diversity is None:
        return values.argsort(descending=True, stable=True)[:k]
    if diversity == "kmeans++":
        apart = values - values.min()  # the shift makes the largest the norm's
        return kmeans_plusplus(apart, k, first="argmax", seed=seed)
    a, h = _embedding(model, pool, scored, tolerance)
    weights = values.clamp(min=torch.finfo(values.dtype).tiny)  # a loss that underflowed is small, not none
    return kmeans_plusplus((a[candidates], h[candidates]), k, first="argmax", weights=weights, seed=seed)


LOSS_TOLERANCE = {"rtol": 1e-2, "atol": 1e-3}
"""How far the losses of two passes over one pool may be apart, by rounding."""

HALF_TOLERANCE = {"rtol": 0.5, "atol": 0.05}
"""The same where the first pass was in half precision."""


def _embedding(model: nn.Module, pool: Any, scored: Scores, tolerance: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Each sample's last-layer gradient as factors (a [N, C], h [N, D]), of a second pass over the pool that was scored."""
    found = gradient_factors(model, pool)
    if len(found.logits) != len(scored):
        raise ValueError(f"expected the pool to give {len(scored)} samples again, got {len(found.logits)}")
    losses = torch.nn.functional.cross_entropy(found.logits, scored.label, reduction="none").to(scored.loss.dtype)
    alike = torch.isclose(losses, scored.loss, **tolerance, equal_nan=True)
    if not alike.all():
        first = int((~alike).nonzero()[0])
        raise ValueError(
            "expected the pool to give the same samples in the same order twice; "
            f"the losses differ from sample {first} on (does a DataLoader shuffle?)"
        )
    return residuals(found.logits, scored.label), found.features
