"""Computes differentials: counts, percentages and their confidence intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import sqrt

from pipeline.model.domain import CallStatus, CellCall, ClassCount, Differential
from pipeline.model.taxonomy import CHILDREN, CellClass, Denominator, denominator_of, is_leukocyte

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

REPORT_ORDER: tuple[CellClass, ...] = (
    CellClass.NEUTROPHIL,
    CellClass.NEUTROPHIL_SEGMENTED,
    CellClass.NEUTROPHIL_BAND,
    CellClass.LYMPHOCYTE,
    CellClass.MONOCYTE,
    CellClass.EOSINOPHIL,
    CellClass.BASOPHIL,
    CellClass.IMMATURE_GRANULOCYTE,
    CellClass.METAMYELOCYTE,
    CellClass.MYELOCYTE,
    CellClass.PROMYELOCYTE,
    CellClass.BLAST,
    CellClass.ERYTHROBLAST,
    CellClass.PLATELET,
)
"""Order of the lines. The line of a parent includes the counts of its children, which follow it."""


def wilson_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of count/n in percent, (0, 100) for n = 0.

    Raises: ValueError, where count is not within 0..n.
    Source: Wilson 1927, J Am Stat Assoc 22:209; recommended for differentials by CLSI H20-A2 (Rümke's table
    gives the binomial interval it approximates).
    """
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is not a proportion")
    if n == 0:
        return 0.0, 100.0
    p = count / n
    z2 = Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return 100.0 * low, 100.0 * high


def differential_of(calls: Iterable[CellCall]) -> Differential:
    """Return the differential of the classified cells."""
    calls = tuple(calls)
    accepted = Counter(call.cell_class for call in calls if call.status is CallStatus.ACCEPTED)
    return differential_from_counts(
        accepted,
        n_unidentified=sum(call.status is CallStatus.UNIDENTIFIED for call in calls),
        n_artefacts=sum(call.status is CallStatus.ARTEFACT for call in calls),
    )


def differential_from_counts(
    accepted: Mapping[CellClass, int], *, n_unidentified: int, n_artefacts: int
) -> Differential:
    """Return the differential for counts by reported class.

    `accepted` counts every accepted cell once: under its leaf, or under the parent if no leaf was certain.
    """
    n_leukocytes = sum(count for cell_class, count in accepted.items() if is_leukocyte(cell_class))
    lines = tuple(
        _line(cell_class, _with_children(cell_class, accepted), n_leukocytes) for cell_class in REPORT_ORDER
    )
    return Differential(
        n_leukocytes=n_leukocytes,
        n_unidentified=n_unidentified,
        n_artefacts=n_artefacts,
        n_found=sum(accepted.values()) + n_unidentified + n_artefacts,
        classes=lines,
    )


def pooled(differentials: Iterable[Differential]) -> Differential:
    """Return the pooled differential of all given ones."""
    differentials = tuple(differentials)
    accepted: Counter[CellClass] = Counter()
    for differential in differentials:
        accepted.update(own_counts(differential))
    return differential_from_counts(
        accepted,
        n_unidentified=sum(d.n_unidentified for d in differentials),
        n_artefacts=sum(d.n_artefacts for d in differentials),
    )


def own_counts(differential: Differential) -> dict[CellClass, int]:
    """Return the counts of cells reported under each class itself, so for parents without their children."""
    counts = {line.cell_class: line.count for line in differential.classes}
    return {
        cell_class: count - sum(counts[child] for child in CHILDREN.get(cell_class, ()))
        for cell_class, count in counts.items()
    }


def not_told_apart(differential: Differential) -> tuple[ClassCount, ...]:
    """Return a line for each parent under which cells were reported themselves: those cells alone.

    With the lines of the classes below it, such a line adds up to the parent's.
    """
    return tuple(
        _line(parent, count, differential.n_leukocytes)
        for parent, count in own_counts(differential).items()
        if parent in CHILDREN and count
    )


def _with_children(cell_class: CellClass, accepted: Mapping[CellClass, int]) -> int:
    below = CHILDREN.get(cell_class, ())
    return accepted.get(cell_class, 0) + sum(accepted.get(child, 0) for child in below)


def _line(cell_class: CellClass, count: int, n_leukocytes: int) -> ClassCount:
    denominator = denominator_of(cell_class)
    if denominator is Denominator.NONE or n_leukocytes == 0:
        return ClassCount(cell_class, count, None, None, denominator)
    percent = 100.0 * count / n_leukocytes
    if denominator is Denominator.PER_100_LEUKOCYTES:
        return ClassCount(cell_class, count, percent, None, denominator)
    return ClassCount(cell_class, count, percent, wilson_interval(count, n_leukocytes), denominator)
