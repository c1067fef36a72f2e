"""Whether a stated probability is the share that is right, and from which one on a call may stand.

A *score* is the probability of the group that was called (neutrophil, immature granulocyte, …), 0 to 1.
Cells that were not found, or were called an artefact, cannot be called: their score is `NOT_CALLED`, below
every threshold, and they count in the denominator of every coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from pipeline.training.data.intervals import Place, Statistic, Values, Weights, group_weights, ratio

Scores = NDArray[np.float64]
BINS = 15
"""equal-width. Source: Guo et al. 2017, arXiv 1706.04599, section 2"""
NOT_CALLED = -1.0
TARGET_RISK = 0.01
UPPER_PERCENT = 95
DISAGREEMENTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
_STEP = 1e-3
"""thresholds are rounded down to this; a finer one would only remember single cells of val"""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of the reliability diagram."""

    low: float
    high: float
    n: int
    mean_probability: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class RiskPoint:
    """The error among the called cells, where those of `score ≥ threshold` are called."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class ScoredCells:
    """What the choice of a threshold needs to know of N cells."""

    scores: Scores
    right: NDArray[np.bool_]
    disagreements: NDArray[np.float64]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """The smallest threshold whose called cells err rarely enough, and what it costs."""

    threshold: float
    max_disagreement: float
    coverage: float
    risk: float
    risk_upper: float
    """see `choose_threshold`"""


def bin_of(probabilities: Scores) -> NDArray[np.int64]:
    """Return the bin of each probability; 1.0 lies in the last."""
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def reliability(probabilities: Scores, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the bins that hold a cell."""
    bins = bin_of(probabilities)
    return tuple(
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int((bins == index).sum()),
            float(probabilities[bins == index].mean()),
            float(right[bins == index].mean()),
        )
        for index in np.unique(bins).tolist()
    )


def calibration_error_of(probabilities: Scores, right: NDArray[np.bool_]) -> Statistic:
    """Return the statistic: the expected calibration error over 15 equal-width bins of the probability.

    Σ over bins of (share of the cells in it) · |accuracy − mean probability|. Source: Guo et al. 2017, eq. 3.
    """
    member = np.eye(BINS)[bin_of(probabilities)]
    gap = member * (right.astype(np.float64) - probabilities)[:, None]

    def calibration_error(weights: Weights) -> Values:
        return ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))

    return calibration_error


def coverage_at_risk_of(scores: Scores, right: NDArray[np.bool_], risk: float) -> Statistic:
    """Return the statistic: the largest share of cells that can be called, best first, at most `risk` wrong.

    Cells of equal score are called together. 0 where even the best ones err too often.
    """
    order = np.argsort(-scores, kind="stable")
    usable = _last_of_ties(scores[order]) & (scores[order] > NOT_CALLED)
    wrong = ~right[order]

    def coverage_at_risk(weights: Weights) -> Values:
        ranked = weights[:, order]
        called = np.cumsum(ranked, axis=1)
        errors = np.cumsum(ranked * wrong, axis=1)
        allowed = usable & (errors <= risk * called)
        best = np.where(allowed, called, 0.0).max(axis=1, initial=0.0)
        return ratio(best, weights.sum(axis=1))

    return coverage_at_risk


def risk_coverage(scores: Scores, right: NDArray[np.bool_]) -> tuple[RiskPoint, ...]:
    """Return the curve, from the surest cells to all that can be called: a point a distinct score."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    called = np.arange(1, scores.size + 1)
    errors = np.cumsum(~right[order])
    usable = np.flatnonzero(_last_of_ties(ranked) & (ranked > NOT_CALLED))
    return tuple(
        RiskPoint(float(ranked[i]), float(called[i] / scores.size), float(errors[i] / called[i]))
        for i in usable.tolist()
    )


def choose_threshold(cells: ScoredCells, risk: float) -> ThresholdChoice | None:
    """Return the smallest threshold under which the upper bound of the called cells' error is ≤ `risk`.

    The bound is the larger of two: the 95th percentile of the error over resamplings of whole groups, and
    the exact binomial one, for no resampling finds an error among few cells that had none. Val is small: an
    error of 1.9 % measured on it promises nothing of the next 100. A smaller risk never gives a smaller
    threshold. None where no threshold is safe enough.
    """
    order = np.argsort(-cells.scores, kind="stable")
    ranked = cells.scores[order]
    usable = _last_of_ties(ranked) & (ranked > NOT_CALLED)
    if not usable.any():
        return None
    weights = group_weights(cells.places)[:, order]
    called = np.cumsum(weights, axis=1)
    risks = np.cumsum(weights * ~cells.right[order], axis=1) / np.maximum(called, 1)
    exact = binomial_upper(np.cumsum(~cells.right[order]), np.arange(1, ranked.size + 1))
    upper = np.maximum(np.percentile(risks[1:], UPPER_PERCENT, axis=0), exact)
    safe = np.flatnonzero(usable & (upper <= risk))
    if safe.size == 0:
        return None
    last = int(safe[-1])
    return ThresholdChoice(
        threshold=_rounded(ranked, last),
        max_disagreement=1.0,
        coverage=(last + 1) / ranked.size,
        risk=float(risks[0, last]),
        risk_upper=float(upper[last]),
    )


def choose_with_disagreement(
    cells: ScoredCells, risk: float, disagreements: Sequence[float] = DISAGREEMENTS
) -> ThresholdChoice | None:
    """Return the pair of thresholds, on probability and on disagreement, that calls most at this risk.

    Of pairs that call equally many, the one that asks least of the disagreement. None as above.
    """
    best: ThresholdChoice | None = None
    for limit in sorted(disagreements, reverse=True):
        agreed = np.where(cells.disagreements <= limit, cells.scores, NOT_CALLED)
        choice = choose_threshold(replace(cells, scores=agreed), risk)
        if choice is not None and (best is None or choice.coverage > best.coverage):
            best = replace(choice, max_disagreement=limit)
    return best


def binomial_upper(errors: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the upper 95 % bounds of the share behind `errors` of `cells`, one-sided.

    Source: Clopper and Pearson 1934, Biometrika 26:404.
    """
    level = UPPER_PERCENT / 100
    bounds = betaincinv(errors + 1.0, np.maximum(cells - errors, 1).astype(np.float64), level)
    return np.where(errors < cells, bounds, 1.0)


def _last_of_ties(ranked: Scores) -> NDArray[np.bool_]:
    return np.append(ranked[:-1] > ranked[1:], np.ones(min(1, ranked.size), np.bool_))


def _rounded(ranked: Scores, last: int) -> float:
    """The score rounded down, where that calls no further cell; else itself."""
    down = float(np.floor(ranked[last] / _STEP) * _STEP)
    following = ranked[last + 1] if last + 1 < ranked.size else NOT_CALLED
    return round(down, 6) if down > following else float(ranked[last])
