"""Whether the mean of an ensemble beats its best member, on the same items, by set and over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.training.intervals import Estimate, Place, estimate, group_weights, mean_of

ItemValues = NDArray[np.float64]
"""float64 (N,): what each item contributes to a mean: 1 for a right answer, a Dice, …; more is better"""
MEAN = "mean"
ALL_SETS = "all"


class Verdict(StrEnum):
    """Whether the mean is better than the best member: what the interval of the difference leaves open."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class MemberValues:
    """One measure of one ensemble's members, and of their mean, item by item."""

    measure: str
    folders: tuple[str, ...]
    """each item's data set"""
    places: tuple[Place, ...]
    values: Mapping[str, ItemValues]
    """by member, and under `MEAN`"""


@dataclass(frozen=True, slots=True)
class MemberFigure:
    """One member's mean over the items."""

    name: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """The members beside their mean; the intervals are paired: all are drawn on the same items."""

    measure: str
    data_set: str
    n: int
    groups: int
    members: tuple[MemberFigure, ...]
    mean: Estimate
    best: str
    """the member with the best figure on these very items, which flatters it"""
    difference: Estimate
    """mean less best member"""
    better: Verdict


def compare(items: MemberValues) -> tuple[Comparison, ...]:
    """Return the comparison by data set, and over all where there are several."""
    folders = np.array(items.folders)
    names = tuple(dict.fromkeys(items.folders))
    parts = [(name, np.flatnonzero(folders == name)) for name in names]
    if len(names) > 1:
        parts.append((ALL_SETS, np.arange(folders.size)))
    return tuple(_comparison(items, data_set, chosen) for data_set, chosen in parts)


def _comparison(items: MemberValues, data_set: str, chosen: NDArray[np.int64]) -> Comparison:
    places = [items.places[index] for index in chosen.tolist()]
    weights = group_weights(places)
    values = {name: part[chosen] for name, part in items.values.items()}
    mean = values.pop(MEAN)
    figures = tuple(MemberFigure(name, estimate(mean_of(part), weights)) for name, part in values.items())
    best = max(values, key=lambda name: float(values[name].mean()))
    difference = estimate(mean_of(mean - values[best]), weights)
    return Comparison(
        measure=items.measure,
        data_set=data_set,
        n=len(places),
        groups=len(set(places)),
        members=figures,
        mean=estimate(mean_of(mean), weights),
        best=best,
        difference=difference,
        better=verdict_of(difference),
    )


def verdict_of(difference: Estimate) -> Verdict:
    """Return yes where the whole interval lies above 0, no where it lies below, else undecided."""
    if difference.low is not None and difference.low > 0:
        return Verdict.YES
    if difference.high is not None and difference.high < 0:
        return Verdict.NO
    return Verdict.UNDECIDED


def pooled(seeds: Sequence[MemberValues]) -> MemberValues:
    """Return the values averaged over trainings that differ in their seed: item by item, member by member.

    Raises: UsageError, where they have other members, or were measured on other items.
    """
    first = seeds[0]
    for other in seeds[1:]:
        if (other.places, other.folders) != (first.places, first.folders) or set(other.values) != set(
            first.values
        ):
            raise UsageError(
                "The ensembles have other members, or saw other pictures; they are no seeds of one training.",
                code="other-members",
            )
    averaged = {name: np.mean([seed.values[name] for seed in seeds], axis=0) for name in first.values}
    return MemberValues(first.measure, first.folders, first.places, averaged)


def by_measure(ensembles: Sequence[Sequence[MemberValues]]) -> Iterator[tuple[MemberValues, ...]]:
    """Yield each measure's values by ensemble. Raises: UsageError, where one lacks a measure."""
    measures = [tuple(part.measure for part in ensemble) for ensemble in ensembles]
    if any(part != measures[0] for part in measures):
        raise UsageError("The folders hold ensembles of other kinds.", code="other-members")
    yield from (tuple(parts) for parts in zip(*ensembles, strict=True))
