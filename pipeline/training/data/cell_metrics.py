"""Metrics of classification, segmentation and detection."""

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
        """Share of the cases on the diagonal; 0 for no case."""
        table = np.array(self.counts)
        return float(np.trace(table) / max(1, table.sum()))

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the names that occur in the truth; 0 for no case."""
        table = np.array(self.counts)
        support, predicted, correct = table.sum(axis=1), table.sum(axis=0), np.diag(table)
        scores = 2 * correct / np.maximum(1, support + predicted)
        return float(scores[support > 0].mean()) if (support > 0).any() else 0.0


def confusion(truth: Sequence[Hashable], predicted: Sequence[Hashable], names: Sequence[str]) -> Confusion:
    """Return the confusion matrix. Raises: ValueError, for different lengths, or unknown names."""
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
    """Overlap of two masks; both figures are 1 where both masks are empty."""

    dice: float
    iou: float


def overlap(predicted: Mask, truth: Mask, known: Mask) -> Overlap:
    """Return Dice and intersection over union of two masks (H, W), over the pixels in `known`."""
    intersection = int((predicted & truth & known).sum())
    total = int((predicted & known).sum()) + int((truth & known).sum())
    if total == 0:
        return Overlap(1.0, 1.0)
    return Overlap(2 * intersection / total, intersection / (total - intersection))


def rect_iou(a: Rect, b: Rect) -> float:
    """Return the intersection over union of two rectangles of one frame; 0 where both are empty."""
    intersection = a.intersection(b).area
    union = a.area + b.area - intersection
    return intersection / union if union else 0.0


@dataclass(frozen=True, slots=True)
class Detection:
    """Counts of detected objects in one picture."""

    matched: int
    found: int
    present: int


def match_rects(found: Sequence[Rect], present: Sequence[Rect]) -> tuple[tuple[int, int], ...]:
    """Return pairs (index in found, index in present) at IoU ≥ 0.5, best first, each index at most once."""
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
