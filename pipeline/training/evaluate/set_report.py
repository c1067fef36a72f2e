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
from pipeline.training.evaluate.end_to_end import Answer, PictureScore
from pipeline.training.evaluate.probability_calibration import (
    NOT_CALLED,
    TARGET_RISK,
    ScoredCells,
    calibration_error_of,
    coverage_at_risk_of,
)

MISSED = "not_found"
NAMES: tuple[str, ...] = (*(str(group) for group in GROUPS), MISSED)
ALL_SETS = "all"
_NOT_NUCLEATED = (CellClass.PLATELET, CellClass.ARTEFACT)
_PLACE_OF = {name: index for index, name in enumerate(NAMES)}


@dataclass(frozen=True, slots=True)
class SetReport:
    """One data set's figures; 95 % intervals by bootstrap over groups."""

    data_set: str
    pictures: int
    groups: int
    """fewer than about ten leave intervals too narrow"""
    labelled_cells: int
    accuracy: Estimate
    """of the best guess, by group; not found is wrong"""
    nucleated_accuracy: Estimate
    """the same, platelets and artefacts apart"""
    macro_f1: Estimate
    coverage: Estimate
    """share of the labelled cells whose call was accepted, at the bundle's thresholds"""
    accepted_accuracy: Estimate
    """among those"""
    coverage_at_1_percent_risk: Estimate
    """share of the labelled cells that could be called, surest first, with at most 1 % of them wrong"""
    calibration_error: Estimate
    """ECE of the found cells: 15 equal-width bins on the called group's probability"""
    detection_recall: Estimate
    """leukocyte boxes met at IoU ≥ 0.5"""
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
    weights = group_weights([score.place for score in scores])
    answers = [answer for score in scores for answer in score.answers]
    owners = np.repeat(np.arange(len(scores)), np.array([len(score.answers) for score in scores], np.int64))
    called = _Called(answers, weights[:, owners])
    detections = [score.detection for score in scores]
    return SetReport(
        data_set=data_set,
        pictures=len(scores),
        groups=len({score.place for score in scores}),
        labelled_cells=len(answers),
        accuracy=called.accuracy(called.every),
        nucleated_accuracy=called.accuracy(called.nucleated),
        macro_f1=called.macro_f1(),
        coverage=estimate(share_of(called.accepted), called.weights),
        accepted_accuracy=called.accuracy(called.accepted),
        coverage_at_1_percent_risk=called.coverage_at_risk(),
        calibration_error=called.calibration_error(),
        detection_recall=_pooled(detections, "recall", weights),
        detection_precision=_pooled(detections, "precision", weights),
        cell_dice=_averaged([score.cell for score in scores], "dice", weights),
        cell_iou=_averaged([score.cell for score in scores], "iou", weights),
        nucleus_dice=_averaged([score.nucleus for score in scores], "dice", weights),
        nucleus_iou=_averaged([score.nucleus for score in scores], "iou", weights),
        confusion=confusion_of(answers),
    )


def confusion_of(answers: Sequence[Answer]) -> Confusion:
    """Return the table of truth by best guess, over groups and `MISSED`."""
    return confusion([str(answer.truth) for answer in answers], [_said(a) for a in answers], NAMES)


def scored_cells(scores: Sequence[PictureScore]) -> ScoredCells:
    """Return every labelled cell as the choice of a threshold sees it."""
    answers = list(chain.from_iterable(score.answers for score in scores))
    return ScoredCells(
        scores=np.array([score_of(answer) for answer in answers], np.float64),
        right=np.array([answer.right for answer in answers], np.bool_),
        disagreements=np.array([a.found.disagreement if a.found else 1.0 for a in answers], np.float64),
        places=tuple(score.place for score in scores for _ in score.answers),
    )


def score_of(answer: Answer) -> float:
    """Return the called group's probability; `NOT_CALLED` for a cell not found, or called an artefact."""
    if answer.found is None or answer.found.status is CallStatus.ARTEFACT:
        return NOT_CALLED
    return answer.found.probability


def _said(answer: Answer) -> str:
    return MISSED if answer.found is None else str(answer.found.said)


class _Called:
    """The answers as arrays, with their weights (B, N)."""

    def __init__(self, answers: Sequence[Answer], weights: Weights) -> None:
        self.weights = weights
        self.every = np.ones(len(answers), np.bool_)
        self.nucleated = np.array([a.truth not in _NOT_NUCLEATED for a in answers], np.bool_)
        self.accepted = np.array([answer.accepted for answer in answers], np.bool_)
        self._right = np.array([answer.right for answer in answers], np.bool_)
        self._answers = answers

    def accuracy(self, among: NDArray[np.bool_]) -> Estimate:
        hits = (self._right & among).astype(np.float64)
        return estimate(ratio_of(hits, among.astype(np.float64)), self.weights)

    def macro_f1(self) -> Estimate:
        truth = np.array([_PLACE_OF[str(answer.truth)] for answer in self._answers], np.int64)
        said = np.array([_PLACE_OF[_said(answer)] for answer in self._answers], np.int64)
        return estimate(macro_f1_of(truth, said, len(NAMES)), self.weights)

    def coverage_at_risk(self) -> Estimate:
        scores = np.array([score_of(answer) for answer in self._answers], np.float64)
        return estimate(coverage_at_risk_of(scores, self._right, TARGET_RISK), self.weights)

    def calibration_error(self) -> Estimate:
        found = [index for index, answer in enumerate(self._answers) if answer.found is not None]
        probabilities = np.array([a.found.probability for a in self._answers if a.found], np.float64)
        statistic = calibration_error_of(probabilities, self._right[found])
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
