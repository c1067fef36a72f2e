"""Measures of quality, as pure functions of predictions and truth."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.model.geometry import Rect

Mask = NDArray[np.bool_]
MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts by (truth, prediction), both in the order of `names`."""

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Part of the cases on the diagonal; 0 for no case."""
        table = np.array(self.counts)
        return float(np.trace(table) / max(1, table.sum()))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the names that occur in the truth; 0 for no case."""
        table = np.array(self.counts)
        support, predicted, right = table.sum(axis=1), table.sum(axis=0), np.diag(table)
        scores = 2 * right / np.maximum(1, support + predicted)
        return float(scores[support > 0].mean()) if (support > 0).any() else 0.0

    @property
    def recalls(self) -> dict[str, float]:
        """Recall by name, of the names that occur in the truth."""
        return {
            name: row[index] / sum(row)
            for index, (name, row) in enumerate(zip(self.names, self.counts, strict=True))
            if sum(row)
        }


def confusion(truth: Sequence[Hashable], predicted: Sequence[Hashable], names: Sequence[str]) -> Confusion:
    """Return the table of pairs. Raises: ValueError, for another number of predictions, or unknown names."""
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} cases, {len(predicted)} predictions")
    place = {name: index for index, name in enumerate(names)}
    table = np.zeros((len(names), len(names)), int)
    for true, guess in zip(truth, predicted, strict=True):
        if true not in place or guess not in place:
            raise ValueError(f"no class of the table: {true}, {guess}")
        table[place[str(true)], place[str(guess)]] += 1
    return Confusion(tuple(names), tuple(tuple(int(count) for count in row) for row in table))


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two masks agree; both 1 where both are empty."""

    dice: float
    iou: float


def overlap(predicted: Mask, truth: Mask, known: Mask) -> Overlap:
    """Return Dice and intersection over union of two masks (H, W), counted where `known`."""
    common = int((predicted & truth & known).sum())
    total = int((predicted & known).sum()) + int((truth & known).sum())
    if total == 0:
        return Overlap(1.0, 1.0)
    return Overlap(2 * common / total, common / (total - common))


def rect_iou(a: Rect, b: Rect) -> float:
    """Return the intersection over union of two rectangles of one frame; 0 where both are empty."""
    common = a.intersection(b).area
    union = a.area + b.area - common
    return common / union if union else 0.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts of one or more pictures; add them up with `+`."""

    matched: int
    found: int
    present: int

    def __add__(self, other: Detection) -> Detection:
        return Detection(self.matched + other.matched, self.found + other.found, self.present + other.present)

    @property
    def recall(self) -> float:
        """Of what is present, the part found; 1 where nothing is present."""
        return self.matched / self.present if self.present else 1.0

    @property
    def precision(self) -> float:
        """Of what was found, the part present; 1 where nothing was found."""
        return self.matched / self.found if self.found else 1.0


def match_rects(found: Sequence[Rect], present: Sequence[Rect]) -> tuple[tuple[int, int], ...]:
    """Return pairs (index in found, index in present) at IoU ≥ 0.5, best first, each index once."""
    pairs = sorted(
        ((rect_iou(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(present)),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    taken_found: set[int] = set()
    taken_present: set[int] = set()
    matched: list[tuple[int, int]] = []
    for iou, i, j in pairs:
        if iou < MATCH_IOU:
            break
        if i not in taken_found and j not in taken_present:
            taken_found.add(i)
            taken_present.add(j)
            matched.append((i, j))
    return tuple(matched)


def detection(found: Sequence[Rect], present: Sequence[Rect]) -> Detection:
    """Return the counts of one picture at IoU ≥ 0.5."""
    return Detection(len(match_rects(found, present)), len(found), len(present))
