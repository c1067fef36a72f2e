"""Intervals by bootstrap over groups: the pictures of a group are near-duplicates and not independent.

Every statistic is a function of weights, float64 (B, N): how often each of N items counts in each of B
resamplings. Row 0 is the original data. Source: Efron and Tibshirani 1993, An Introduction to the
Bootstrap, ch. 13 (percentile interval); Field and Welsh 2007, JRSS B 69:369 (whole clusters are drawn).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
"""float64 (B, N): rows are resamplings, columns items"""
Values = NDArray[np.float64]
"""float64 (B,), NaN where there is nothing to measure"""
Statistic = Callable[[Weights], Values]

RESAMPLINGS = 1000
SEED = 20231
LEVEL = 0.95
_TAILS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float | None
    """None where there is nothing to measure"""
    low: float | None = None
    """None where there is a single group, which cannot be resampled"""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """The images that an item is grouped with; groups are drawn within their stratum, such as a data set."""

    stratum: str
    name: str


NOTHING = Estimate(None)
ALL_SETS = "all"
"""names the figures over all data sets together"""


def group_weights(groups: Sequence[ImageGroup], resamplings: int = RESAMPLINGS, seed: int = SEED) -> Weights:
    """Return float64 (1 + resamplings, N): ones, then how often each item's group was drawn.

    From each stratum as many groups are drawn as it has, with replacement. The same arguments give the same
    weights.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamplings, len(groups)))
    strata = np.array([group.stratum for group in groups])
    names = np.array([group.name for group in groups])
    for stratum in dict.fromkeys(strata.tolist()):
        chosen = np.flatnonzero(strata == stratum)
        distinct, owner = np.unique(names[chosen], return_inverse=True)
        shares = np.full(distinct.size, 1 / distinct.size)
        drawn = rng.multinomial(distinct.size, shares, size=resamplings)
        weights[1:, chosen] = drawn[:, owner]
    return weights


def estimate(statistic: Statistic, weights: Weights) -> Estimate:
    """Return the statistic of the original data, with the percentile interval of the resamplings.

    Resamplings in which there is nothing to measure are left out. With few groups (fewer than about ten) the
    interval is too narrow.
    """
    if weights.shape[1] == 0:
        return NOTHING
    values = statistic(weights)
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return NOTHING
    if drawn.size == 0 or (weights == weights[:, :1]).all():  # a single group
        return Estimate(value)
    low, high = np.percentile(drawn, _TAILS)
    return Estimate(value, float(low), float(high))


def ratio(numerator: Values, denominator: Values) -> Values:
    """Return the quotients; NaN where the denominator is 0."""
    out: Values = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def share_of(flags: NDArray[np.bool_]) -> Statistic:
    """Return the statistic: the weighted share of items whose flag is set."""
    return mean_of(flags.astype(np.float64))


def mean_of(values: NDArray[np.float64]) -> Statistic:
    """Return the statistic: the weighted mean of the items' values."""
    return lambda weights: ratio(weights @ values, weights.sum(axis=1))


def ratio_of(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Statistic:
    """Return the statistic: the weighted sum of one over that of the other; NaN where the latter is 0."""
    return lambda weights: ratio(weights @ numerators, weights @ denominators)


def macro_f1_of(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Statistic:
    """Return the statistic: the mean F1 over the classes that occur in the truth; class indices (N,)."""
    is_truth = np.eye(classes)[truth]
    is_predicted = np.eye(classes)[predicted]

    def macro_f1(weights: Weights) -> Values:
        support, guesses = weights @ is_truth, weights @ is_predicted
        correct = weights @ (is_truth * is_predicted)
        scores = 2 * correct / np.maximum(support + guesses, 1)
        occurs = support > 0
        return ratio((scores * occurs).sum(axis=1), occurs.sum(axis=1).astype(np.float64))

    return macro_f1
