"""Calibration of the predicted probabilities, and the thresholds above which a call is accepted.

A *score* is the probability of the predicted group (neutrophil, immature granulocyte, …), 0 to 1. Cells that
were not found, or were taken for an artefact, have no call: their score is `NO_CALL`, below every threshold,
and they count in the denominator of every coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from pipeline.training.data.intervals import ImageGroup, Statistic, Values, Weights, group_weights, ratio

Scores = NDArray[np.float64]
BINS = 15
"""equal-width. Source: Guo et al. 2017, arXiv 1706.04599, section 2"""
NO_CALL = -1.0
TARGET_RISK = 0.01
UPPER_PERCENT = 95
DISAGREEMENTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
_STEP = 1e-3
"""thresholds are rounded down to this; finer ones would overfit to single cells of val"""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the reliability diagram."""

    low: float
    high: float
    n: int
    mean_probability: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class RiskPoint:
    """Coverage, and risk (the error among the accepted calls), where `score ≥ threshold` is accepted."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class ScoredCells:
    """N cells, as the choice of a threshold sees them."""

    scores: Scores
    correct: NDArray[np.bool_]
    disagreements: NDArray[np.float64]
    groups: tuple[ImageGroup, ...]


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """The smallest threshold that keeps the risk, and its coverage."""

    threshold: float
    max_disagreement: float
    coverage: float
    risk: float
    risk_upper: float
    """see `choose_threshold`"""


def bin_of(probabilities: Scores) -> NDArray[np.int64]:
    """Return the bin of each probability; 1.0 lies in the last."""
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def reliability(probabilities: Scores, correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Return the bins that hold a cell."""
    bins = bin_of(probabilities)
    return tuple(
        Bin(
            index / BINS,
            (index + 1) / BINS,
            int((bins == index).sum()),
            float(probabilities[bins == index].mean()),
            float(correct[bins == index].mean()),
        )
        for index in np.unique(bins).tolist()
    )


def calibration_error_of(probabilities: Scores, correct: NDArray[np.bool_]) -> Statistic:
    """Return the statistic: the expected calibration error over 15 equal-width bins of the probability.

    Σ over bins of (share of the cells in it) · |accuracy − mean probability|. Source: Guo et al. 2017, eq. 3.
    """
    member = np.eye(BINS)[bin_of(probabilities)]
    gap = member * (correct.astype(np.float64) - probabilities)[:, None]

    def calibration_error(weights: Weights) -> Values:
        return ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))

    return calibration_error


def coverage_at_risk_of(scores: Scores, correct: NDArray[np.bool_], risk: float) -> Statistic:
    """Return the statistic: the largest coverage, by falling score, at which the error is at most `risk`.

    Cells of equal score are accepted together. 0 where the risk is exceeded from the start.
    """
    order = np.argsort(-scores, kind="stable")
    usable = _last_of_ties(scores[order]) & (scores[order] > NO_CALL)
    wrong = ~correct[order]

    def coverage_at_risk(weights: Weights) -> Values:
        ranked = weights[:, order]
        accepted = np.cumsum(ranked, axis=1)
        errors = np.cumsum(ranked * wrong, axis=1)
        allowed = usable & (errors <= risk * accepted)
        best = np.where(allowed, accepted, 0.0).max(axis=1, initial=0.0)
        return ratio(best, weights.sum(axis=1))

    return coverage_at_risk


def risk_coverage(scores: Scores, correct: NDArray[np.bool_]) -> tuple[RiskPoint, ...]:
    """Return the risk-coverage curve by falling threshold: one point for each distinct score."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    accepted = np.arange(1, scores.size + 1)
    errors = np.cumsum(~correct[order])
    usable = np.flatnonzero(_last_of_ties(ranked) & (ranked > NO_CALL))
    return tuple(
        RiskPoint(float(ranked[i]), float(accepted[i] / scores.size), float(errors[i] / accepted[i]))
        for i in usable.tolist()
    )


def choose_threshold(cells: ScoredCells, risk: float) -> ThresholdChoice | None:
    """Return the smallest threshold at which the upper bound of the accepted calls' error is ≤ `risk`.

    The bound is the larger of two: the 95th percentile of the error over resamplings of whole groups, and
    the exact binomial one, since no resampling shows an error among few cells that had none. A bound is
    used because val is small. A smaller risk never gives a smaller threshold. None where no threshold keeps
    the risk.
    """
    order = np.argsort(-cells.scores, kind="stable")
    ranked = cells.scores[order]
    usable = _last_of_ties(ranked) & (ranked > NO_CALL)
    if not usable.any():
        return None
    weights = group_weights(cells.groups)[:, order]
    accepted = np.cumsum(weights, axis=1)
    risks = np.cumsum(weights * ~cells.correct[order], axis=1) / np.maximum(accepted, 1)
    exact = binomial_upper(np.cumsum(~cells.correct[order]), np.arange(1, ranked.size + 1))
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
    """Return the thresholds on probability and on disagreement with the largest coverage at this risk.

    Of pairs with equal coverage, the one that allows most disagreement. None, as for `choose_threshold`.
    """
    best: ThresholdChoice | None = None
    for limit in sorted(disagreements, reverse=True):
        agreed = np.where(cells.disagreements <= limit, cells.scores, NO_CALL)
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
    """The score rounded down, where that accepts no further cell; else itself."""
    down = float(np.floor(ranked[last] / _STEP) * _STEP)
    following = ranked[last + 1] if last + 1 < ranked.size else NO_CALL
    return round(down, 6) if down > following else float(ranked[last])
