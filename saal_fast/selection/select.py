"""`select`: which samples to label next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .._utils.checks import check_choice, check_whole
from .._utils.eager import outside_compile
from ..kmeans import kmeans_plusplus
from ..pools import Stream
from ..scoring import Objective, Options, ScoreOptions, Scores, score_pool
from ..scoring.options import with_options

Diversity = Literal["kmeans++", "badge"]


@outside_compile
@with_options(Options)
def select(
    model: nn.Module,
    pool: Any,
    k: int,
    rho: float = 0.05,
    *,
    diversity: Diversity | None = None,
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
            `(softmax(z) − onehot(ŷ)) ⊗ h` of the last linear layer with input h (BADGE, arXiv:1906.03671, Section 3, kept
            as factors), each D² times the sample's perturbed loss (Eq. 6), the largest weighted norm first: far apart, as
            BADGE has it, and sharp, as SAAL has it. The scoring pass gives the gradients too. It takes no other `task` or
            `objective` than the default. The weighting is this library's; neither paper has it.
        seed: of the D² sampling, a number or a generator; None for fresh entropy.
        **options: of `score`.

    Returns:
        Positions in the pool, int64 [k], the best first. With a diversity, in the order drawn. Samples whose score is not
        finite (`on_nonfinite="keep"`) are never picked.

    Raises:
        TypeError: k is no whole number.
        ValueError: k < 1, or more than the samples with a finite score; for "badge", the last linear layer does not make
            the logits; and as `score`.
    """
    return select_scored(model, pool, k, rho, diversity=diversity, seed=seed, **options)[0]


def select_scored(
    model: nn.Module,
    pool: Any,
    k: int,
    rho: float = 0.05,
    *,
    diversity: Diversity | None = None,
    seed: int | torch.Generator | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Tensor]:
    """As `select`; returns the positions, and the scores [N] that chose them."""
    check_whole("k", k, 1)
    for name in ("details", "embeddings"):
        if name in options:
            raise TypeError(f"expected options of score but {name}: select gives positions; call score for {name}")
    chosen = ScoreOptions.of(rho, options)
    check_diversity(diversity, chosen)
    chosen = replace(chosen, embeddings=diversity == "badge")
    if diversity is not None:  # a bad seed, or a C++ core that was not built, shows before any work is done
        kmeans_plusplus(
            torch.zeros(1, dtype=torch.float32, device="cpu"), 1, seed=None if isinstance(seed, torch.Generator) else seed
        )
    length = Stream(pool, torch.device("cpu")).length
    if length is not None and k > length:
        raise ValueError(f"expected k <= {length}, the size of the pool; got k={k}")
    scored = score_pool(model, pool, chosen)
    return pick(scored, k, objective=chosen.objective, diversity=diversity, seed=seed), scored.by(chosen.objective)


def check_diversity(diversity: Diversity | None, options: ScoreOptions) -> None:
    """Raises ValueError where there is no such diversity, or it does not go with the options."""
    check_choice("diversity", diversity, (None, *get_args(Diversity)))
    if diversity == "badge" and (options.objective != "max" or options.task is not None):
        raise ValueError('expected objective="max" and task=None with diversity="badge": it weighs a class\'s gradients')


def pick(
    scored: Scores,
    k: int,
    *,
    objective: Objective = "max",
    diversity: Diversity | None = None,
    seed: int | torch.Generator | None = None,
) -> Tensor:
    """What `select` answers, from scores at hand; int64 [k].

    Args:
        scored: of `score(..., details=True)`, with `embeddings=True` for "badge".
        k: as for `select`.
        objective: as for `score`.
        diversity: as for `select`.
        seed: as for `select`.

    Raises:
        TypeError: k is not a whole number.
        ValueError: k < 1 or more than the samples with a finite score, there is no such diversity, or "badge" lacks
            embeddings.
    """
    check_whole("k", k, 1)
    check_choice("diversity", diversity, (None, *get_args(Diversity)))
    scores = scored.by(objective)
    candidates = (scored.finite & scores.isfinite()).nonzero()[:, 0]
    if k > len(candidates):
        finite = "" if len(candidates) == len(scores) else " with a finite score"
        raise ValueError(f"expected k <= {len(candidates)}, the samples of the pool{finite}; got k={k}")
    values = scores[candidates]
    if diversity is None:
        return candidates[values.argsort(descending=True, stable=True)[:k]]
    if diversity == "kmeans++":
        apart = values - values.min()  # the shift makes the largest the norm's
        return candidates[kmeans_plusplus(apart, k, first="argmax", seed=seed)]
    if scored.embedding is None:
        raise ValueError('expected scores with embeddings for diversity="badge": score them with embeddings=True')
    a, h = scored.embedding
    weights = values.clamp(min=torch.finfo(values.dtype).tiny)  # a loss that underflowed is small, not none
    return candidates[kmeans_plusplus((a[candidates], h[candidates]), k, first="argmax", weights=weights, seed=seed)]
