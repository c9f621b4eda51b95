"""The robust k-centre of Coreset, as mixed integer programmes that scipy's HiGHS solves.

Sener & Savarese (arXiv:1708.00489, Section 4.2) look for the smallest radius δ at which k centres cover the pool except a
few outliers, by bisection over the distances that occur; at each δ a programme tells whether such centres exist. Theirs has
a variable ω_ij for every pair (centre j serves sample i) and ξ_ij for an outlier. Any centre within δ may serve a sample, so
it only matters whether there is one, and N + N variables are enough:

    u_j: j is chosen,   o_i: i is left out        (0 or 1)
    Σ_j u_j = k,        Σ_i o_i <= Ξ,
    o_i + Σ_{j: d(i, j) <= δ} u_j >= 1            for each i without a labelled sample within δ

The two have the same feasible choices u.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from .._utils.logs import log

MAX_SAMPLES = 4096
"""Largest pool: the programme has a row for each sample, and all their distances are in memory."""


def check() -> None:
    """Raises ImportError where scipy is missing."""
    _scipy()


def robust(
    points: Tensor, k: int, labelled: Tensor, start: Tensor, outliers: float = 1e-4, time_limit: float = 60.0
) -> Tensor:
    """Finds the k centres that cover all points but the outliers with the smallest radius.

    Args:
        points: float64 [N, d], N <= `MAX_SAMPLES`.
        k: number of centres.
        labelled: distance of each point to the nearest labelled one, inf where there is none; [N].
        start: k centres known already, [k]; they are returned where no smaller radius is feasible.
        outliers: share of the points that may stay uncovered; ⌊share · N⌋ of them.
        time_limit: seconds for all programmes together; after them the best cover so far is taken, and a warning logged.

    Returns:
        int64 [k], the farthest from the labelled points first (of equally far ones the first in the pool).

    Raises:
        ValueError: N > `MAX_SAMPLES`.
    """
    n = len(points)
    if n > MAX_SAMPLES:
        raise ValueError(
            f"expected a pool of at most {MAX_SAMPLES} samples for robust=True, whose programme has a row for each; "
            f"got {n}. Draw fewer candidates, or use robust=False"
        )
    pairs = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    allowed = int(outliers * n)
    best, ends = start, time.monotonic() + time_limit
    upper = radius(pairs, best, labelled, allowed)
    radii = torch.unique(torch.cat([pairs.flatten(), labelled[labelled.isfinite()]]))
    radii = radii[radii < upper]
    low, high = 0, len(radii)  # the smallest feasible radius is radii[i] for an i in [low, high), or else `upper`
    while low < high:
        middle = (low + high) // 2
        answer = _feasible(pairs, k, labelled, float(radii[middle]), allowed, ends - time.monotonic())
        if answer is None:
            log.warning(
                "coreset: no time left (%g s) before the least radius was found; took a cover of radius %g, where at "
                "best %g can be had",
                time_limit,
                upper,
                float(radii[low]),
            )
            break
        if len(answer):
            best = answer
            upper = radius(pairs, best, labelled, allowed)
            high = int((radii < upper).sum())
        else:
            low = middle + 1
    order = labelled[best].nan_to_num(posinf=0.0).argsort(descending=True, stable=True)
    return best[order]


def radius(pairs: Tensor, picks: Tensor, labelled: Tensor, allowed: int) -> float:
    """Distance of the farthest point to its centre once the `allowed` farthest points are left out."""
    reach = torch.minimum(pairs[:, picks].amin(1), labelled).sort(descending=True).values
    return float(reach[allowed]) if allowed < len(reach) else 0.0


def _feasible(pairs: Tensor, k: int, labelled: Tensor, delta: float, allowed: int, seconds: float) -> Tensor | None:
    """K centres that cover all but `allowed` points within delta; empty if there are none, None if time ran out."""
    np, optimize, sparse = _scipy()
    if seconds <= 0:
        return None
    n = len(pairs)
    open_ = (labelled > delta).nonzero()[:, 0]
    near = sparse.csr_array((pairs[open_] <= delta).numpy().astype(np.float64))
    left_out = sparse.eye_array(len(open_), format="csr")
    ones, zeros = np.ones((1, n)), np.zeros((1, n))
    spare_ones, spare_zeros = np.ones((1, len(open_))), np.zeros((1, len(open_)))
    rows = sparse.vstack(
        [
            sparse.hstack([near, left_out]),
            sparse.csr_array(np.hstack([ones, spare_zeros])),
            sparse.csr_array(np.hstack([zeros, spare_ones])),
        ],
        format="csc",
    )
    lower = np.concatenate([np.ones(len(open_)), [k, 0]])
    above = np.concatenate([np.full(len(open_), np.inf), [k, allowed]])
    found = optimize.milp(
        c=np.zeros(n + len(open_)),
        integrality=np.ones(n + len(open_)),
        bounds=optimize.Bounds(0, 1),
        constraints=optimize.LinearConstraint(rows, lower, above),
        options={"time_limit": seconds},
    )
    if found.x is not None:
        return torch.from_numpy((found.x[:n] > 0.5).nonzero()[0]).long()
    if found.status == 2:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    if found.status == 1:
        return None
    raise RuntimeError(f"expected HiGHS to solve or refute a cover of radius {delta:g}, got: {found.message}")


def _scipy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415
        from scipy import optimize, sparse  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError("Coreset(robust=True) needs scipy: `pip install 'saal-fast[coreset]'`") from error
    return np, optimize, sparse
