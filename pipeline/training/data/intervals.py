"""Intervals by bootstrap over groups: pictures of one group are near-duplicates, and count as one opinion.

Every statistic is a function of weights, float64 (B, N): how often each of N items counts in each of B
resamplings. Row 0 is the data as they are. Source: Efron and Tibshirani 1993, An Introduction to the
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
    """None where a single group leaves nothing to draw from"""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item comes from: groups are drawn within their stratum, such as a data set."""

    stratum: str
    group: str


NOTHING = Estimate(None)


def group_weights(places: Sequence[Place], resamplings: int = RESAMPLINGS, seed: int = SEED) -> Weights:
    """Return float64 (1 + resamplings, N): ones, then how often each item's group was drawn.

    As many groups are drawn from each stratum as it has, with replacement. Same arguments, same weights.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamplings, len(places)))
    strata = np.array([place.stratum for place in places])
    groups = np.array([place.group for place in places])
    for stratum in dict.fromkeys(strata.tolist()):
        chosen = np.flatnonzero(strata == stratum)
        names, owner = np.unique(groups[chosen], return_inverse=True)
        drawn = rng.multinomial(names.size, np.full(names.size, 1 / names.size), size=resamplings)
        weights[1:, chosen] = drawn[:, owner]
    return weights


def estimate(statistic: Statistic, weights: Weights) -> Estimate:
    """Return the statistic of the data as they are, with the percentile interval of the resamplings.

    Resamplings in which there is nothing to measure are left out. With few groups (fewer than about ten) the
    interval is too narrow: the report says how many there are.
    """
    if weights.shape[1] == 0:
        return NOTHING
    values = statistic(weights)
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value):
        return NOTHING
    if drawn.size == 0 or (weights == weights[:, :1]).all():  # one group, however many were drawn from
        return Estimate(value)
    low, high = np.percentile(drawn, _TAILS)
    return Estimate(value, float(low), float(high))


def ratio(numerator: Values, denominator: Values) -> Values:
    """Return the quotients; NaN where the denominator is 0."""
    out: Values = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def share_of(hits: NDArray[np.bool_]) -> Statistic:
    """Return the statistic: the weighted share of items that hit."""
    return mean_of(hits.astype(np.float64))


def mean_of(values: NDArray[np.float64]) -> Statistic:
    """Return the statistic: the weighted mean of the items' values."""
    return lambda weights: ratio(weights @ values, weights.sum(axis=1))


def ratio_of(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> Statistic:
    """Return the statistic: the weighted sum of one over that of the other; NaN where the latter is 0."""
    return lambda weights: ratio(weights @ numerators, weights @ denominators)


def macro_f1_of(truth: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> Statistic:
    """Return the statistic: the mean F1 over the classes that occur in the truth; class indices (N,)."""
    is_truth = np.eye(classes)[truth]
    is_said = np.eye(classes)[said]

    def macro_f1(weights: Weights) -> Values:
        support, predicted = weights @ is_truth, weights @ is_said
        right = weights @ (is_truth * is_said)
        scores = 2 * right / np.maximum(support + predicted, 1)
        occurs = support > 0
        return ratio((scores * occurs).sum(axis=1), occurs.sum(axis=1).astype(np.float64))

    return macro_f1
