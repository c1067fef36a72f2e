"""Whether the mean of an ensemble beats its best member, on the same items, by set and over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.model.errors import UsageError
from pipeline.training.data.intervals import (
    ALL_SETS,
    SEED,
    Estimate,
    ImageGroup,
    Statistic,
    Values,
    Weights,
    estimate,
    group_weights,
    mean_of,
    ratio,
)

ItemValues = NDArray[np.float64]
"""float64 (N,): each item's contribution to a mean: 1 if correct, a Dice, …; higher is better"""
MEAN = "mean"


class ComparisonOutcome(StrEnum):
    """Whether the mean is better than the best member, by the interval of their difference."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class MemberValues:
    """One measure of one ensemble's members, and of their mean, item by item."""

    measure: str
    folders: tuple[str, ...]
    """each item's data set"""
    groups: tuple[ImageGroup, ...]
    values: Mapping[str, ItemValues]
    """by member, and under `MEAN`"""


@dataclass(frozen=True, slots=True)
class MemberFigure:
    """One member's mean over the items."""

    name: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """The members and their mean; the intervals are paired: all use the same resampled items."""

    measure: str
    data_set: str
    seeds: int
    """training runs that the figures are means over"""
    n: int
    groups: int
    members: tuple[MemberFigure, ...]
    mean: Estimate
    best: tuple[str, ...]
    """of each seed, the member with the best figure on these same items: an optimistic choice"""
    difference: Estimate
    """mean minus best member, of the same seed"""
    better: ComparisonOutcome


def compare(seeds: Sequence[MemberValues]) -> tuple[Comparison, ...]:
    """Return the comparison by data set, and over all where there are several.

    `seeds` are training runs that differ in their seed alone; figures are means over them. Seeds and groups
    are resampled independently, both with replacement, so that the intervals cover another training run on
    other groups; with few seeds they are too narrow.
    Source: Owen 2007, Annals of Applied Statistics 1:386 (the pigeonhole bootstrap).

    Raises: UsageError, where the seeds differ in their members or were measured on different items.
    """
    _require_same_members(seeds)
    folders = np.array(seeds[0].folders)
    names = tuple(dict.fromkeys(seeds[0].folders))
    parts = [(name, np.flatnonzero(folders == name)) for name in names]
    if len(names) > 1:
        parts.append((ALL_SETS, np.arange(folders.size)))
    return tuple(_comparison(seeds, data_set, chosen) for data_set, chosen in parts)


def _require_same_members(seeds: Sequence[MemberValues]) -> None:
    first = seeds[0]
    for other in seeds[1:]:
        same_items = (other.groups, other.folders) == (first.groups, first.folders)
        if not same_items or set(other.values) != set(first.values):
            raise UsageError(
                "The ensembles differ in their members or pictures; they are not seeds of one recipe.",
                code="other_members",
            )


def _comparison(seeds: Sequence[MemberValues], data_set: str, chosen: NDArray[np.int64]) -> Comparison:
    groups = [seeds[0].groups[index] for index in chosen.tolist()]
    weights = group_weights(groups)
    members = [name for name in seeds[0].values if name != MEAN]
    by_name = {name: np.stack([seed.values[name][chosen] for seed in seeds]) for name in (*members, MEAN)}
    best = [max(members, key=lambda name: float(by_name[name][index].mean())) for index in range(len(seeds))]
    best_values = np.stack([by_name[name][index] for index, name in enumerate(best)])
    difference = estimate(_mean_over_seeds(by_name[MEAN] - best_values), weights)
    return Comparison(
        measure=seeds[0].measure,
        data_set=data_set,
        seeds=len(seeds),
        n=len(groups),
        groups=len(set(groups)),
        members=tuple(
            MemberFigure(name, estimate(_mean_over_seeds(by_name[name]), weights)) for name in members
        ),
        mean=estimate(_mean_over_seeds(by_name[MEAN]), weights),
        best=tuple(best),
        difference=difference,
        better=verdict_of(difference),
    )


def _mean_over_seeds(values: NDArray[np.float64]) -> Statistic:
    """Return the statistic of float64 (S, N), items by seed: the mean over the resampled items and seeds."""
    groups = [ImageGroup("", str(seed)) for seed in range(len(values))]

    def mean(weights: Weights) -> Values:
        drawn = group_weights(groups, len(weights) - 1, SEED + 1)
        by_seed = np.stack([mean_of(one)(weights) for one in values], axis=1)
        return ratio((drawn * by_seed).sum(axis=1), drawn.sum(axis=1))

    return mean


def verdict_of(difference: Estimate) -> ComparisonOutcome:
    """Return yes where the whole interval lies above 0, no where it lies below, else undecided."""
    if difference.low is not None and difference.low > 0:
        return ComparisonOutcome.YES
    if difference.high is not None and difference.high < 0:
        return ComparisonOutcome.NO
    return ComparisonOutcome.UNDECIDED


def by_measure(ensembles: Sequence[Sequence[MemberValues]]) -> Iterator[tuple[MemberValues, ...]]:
    """Yield all ensembles' values, measure by measure. Raises: UsageError, where one lacks a measure."""
    measures = [tuple(part.measure for part in ensemble) for ensemble in ensembles]
    if any(part != measures[0] for part in measures):
        raise UsageError("The folders hold ensembles of different kinds.", code="other_members")
    yield from (tuple(parts) for parts in zip(*ensembles, strict=True))
