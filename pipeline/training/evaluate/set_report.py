"""The figures of one data set, or of all, each with its interval: what `evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import CallStatus
from pipeline.model.taxonomy import GROUPS, CellClass
from pipeline.training.data.cell_metrics import Confusion, Detection, Overlap, confusion
from pipeline.training.data.intervals import (
    ALL_SETS,
    NOTHING,
    Estimate,
    Weights,
    estimate,
    group_weights,
    macro_f1_of,
    mean_of,
    ratio_of,
    share_of,
)
from pipeline.training.evaluate.end_to_end import LabelledCell, PictureScore
from pipeline.training.evaluate.probability_calibration import (
    NO_CALL,
    TARGET_RISK,
    ScoredCells,
    calibration_error_of,
    coverage_at_risk_of,
)

MISSED = "not_found"
NAMES: tuple[str, ...] = (*(str(group) for group in GROUPS), MISSED)
_NOT_NUCLEATED = (CellClass.PLATELET, CellClass.ARTEFACT)
_INDEX_OF = {name: index for index, name in enumerate(NAMES)}


@dataclass(frozen=True, slots=True)
class SetReport:
    """One data set's figures; 95 % intervals by bootstrap over groups."""

    data_set: str
    pictures: int
    groups: int
    """fewer than about ten leave intervals too narrow"""
    labelled_cells: int
    accuracy: Estimate
    """of the likeliest group; a cell that was not found counts as wrong"""
    nucleated_accuracy: Estimate
    """the same, without platelets and artefacts"""
    macro_f1: Estimate
    coverage: Estimate
    """share of the labelled cells whose call is accepted, at the bundle's thresholds"""
    accuracy_at_coverage: Estimate
    """accuracy among the accepted calls"""
    coverage_at_1_percent_risk: Estimate
    """largest coverage, by falling probability, at which at most 1 % of the accepted calls are wrong"""
    calibration_error: Estimate
    """ECE of the cells that were found: 15 equal-width bins of the predicted group's probability"""
    detection_recall: Estimate
    """leukocyte boxes matched at IoU ≥ 0.5"""
    detection_precision: Estimate
    cell_dice: Estimate
    cell_iou: Estimate
    nucleus_dice: Estimate
    nucleus_iou: Estimate
    confusion: Confusion


def set_reports(scores: Sequence[PictureScore]) -> tuple[SetReport, ...]:
    """Return a report by data set, in their order, and one over all where there are several."""
    by_set: dict[str, list[PictureScore]] = {}
    for score in scores:
        by_set.setdefault(score.data_set, []).append(score)
    reports = [set_report(data_set, part) for data_set, part in by_set.items()]
    if len(by_set) > 1:
        reports.append(set_report(ALL_SETS, scores))
    return tuple(reports)


def set_report(data_set: str, scores: Sequence[PictureScore]) -> SetReport:
    """Return the figures of these pictures: cells and boxes are pooled, overlaps averaged over pictures."""
    weights = group_weights([score.group for score in scores])
    cells = [cell for score in scores for cell in score.cells]
    owners = np.repeat(np.arange(len(scores)), np.array([len(score.cells) for score in scores], np.int64))
    arrays = _CellArrays(cells, weights[:, owners])
    detections = [score.detection for score in scores]
    return SetReport(
        data_set=data_set,
        pictures=len(scores),
        groups=len({score.group for score in scores}),
        labelled_cells=len(cells),
        accuracy=arrays.accuracy(arrays.every),
        nucleated_accuracy=arrays.accuracy(arrays.nucleated),
        macro_f1=arrays.macro_f1(),
        coverage=estimate(share_of(arrays.accepted), arrays.weights),
        accuracy_at_coverage=arrays.accuracy(arrays.accepted),
        coverage_at_1_percent_risk=arrays.coverage_at_risk(),
        calibration_error=arrays.calibration_error(),
        detection_recall=_pooled(detections, "recall", weights),
        detection_precision=_pooled(detections, "precision", weights),
        cell_dice=_averaged([score.cell_overlap for score in scores], "dice", weights),
        cell_iou=_averaged([score.cell_overlap for score in scores], "iou", weights),
        nucleus_dice=_averaged([score.nucleus_overlap for score in scores], "dice", weights),
        nucleus_iou=_averaged([score.nucleus_overlap for score in scores], "iou", weights),
        confusion=confusion_of(cells),
    )


def confusion_of(cells: Sequence[LabelledCell]) -> Confusion:
    """Return the confusion matrix of truth by prediction, over groups and `MISSED`."""
    return confusion([str(cell.truth) for cell in cells], [_predicted(cell) for cell in cells], NAMES)


def scored_cells(scores: Sequence[PictureScore]) -> ScoredCells:
    """Return every labelled cell as the choice of a threshold sees it."""
    cells = list(chain.from_iterable(score.cells for score in scores))
    return ScoredCells(
        scores=np.array([score_of(cell) for cell in cells], np.float64),
        correct=np.array([cell.correct for cell in cells], np.bool_),
        disagreements=np.array(
            [c.prediction.disagreement if c.prediction else 1.0 for c in cells], np.float64
        ),
        groups=tuple(score.group for score in scores for _ in score.cells),
    )


def score_of(cell: LabelledCell) -> float:
    """Return the predicted group's probability; `NO_CALL` for a cell not found, or taken for an artefact."""
    if cell.prediction is None or cell.prediction.status is CallStatus.ARTEFACT:
        return NO_CALL
    return cell.prediction.probability


def _predicted(cell: LabelledCell) -> str:
    return MISSED if cell.prediction is None else str(cell.prediction.cell_class)


class _CellArrays:
    """The labelled cells as arrays, with their weights (B, N)."""

    def __init__(self, cells: Sequence[LabelledCell], weights: Weights) -> None:
        self.weights = weights
        self.every = np.ones(len(cells), np.bool_)
        self.nucleated = np.array([cell.truth not in _NOT_NUCLEATED for cell in cells], np.bool_)
        self.accepted = np.array([cell.accepted for cell in cells], np.bool_)
        self._correct = np.array([cell.correct for cell in cells], np.bool_)
        self._cells = cells

    def accuracy(self, among: NDArray[np.bool_]) -> Estimate:
        hits = (self._correct & among).astype(np.float64)
        return estimate(ratio_of(hits, among.astype(np.float64)), self.weights)

    def macro_f1(self) -> Estimate:
        truth = np.array([_INDEX_OF[str(cell.truth)] for cell in self._cells], np.int64)
        predicted = np.array([_INDEX_OF[_predicted(cell)] for cell in self._cells], np.int64)
        return estimate(macro_f1_of(truth, predicted, len(NAMES)), self.weights)

    def coverage_at_risk(self) -> Estimate:
        scores = np.array([score_of(cell) for cell in self._cells], np.float64)
        return estimate(coverage_at_risk_of(scores, self._correct, TARGET_RISK), self.weights)

    def calibration_error(self) -> Estimate:
        found = [index for index, cell in enumerate(self._cells) if cell.prediction is not None]
        probabilities = np.array([c.prediction.probability for c in self._cells if c.prediction], np.float64)
        statistic = calibration_error_of(probabilities, self._correct[found])
        return estimate(statistic, self.weights[:, found])


def _pooled(detections: Sequence[Detection | None], figure: str, weights: Weights) -> Estimate:
    known = [index for index, part in enumerate(detections) if part is not None]
    parts = [part for part in detections if part is not None]
    if not parts:
        return NOTHING
    matched = np.array([part.matched for part in parts], np.float64)
    among = [part.present if figure == "recall" else part.found for part in parts]
    return estimate(ratio_of(matched, np.array(among, np.float64)), weights[:, known])


def _averaged(overlaps: Sequence[Overlap | None], figure: str, weights: Weights) -> Estimate:
    known = [index for index, part in enumerate(overlaps) if part is not None]
    values = [part.dice if figure == "dice" else part.iou for part in overlaps if part is not None]
    return estimate(mean_of(np.array(values, np.float64)), weights[:, known])
