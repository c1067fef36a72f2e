"""How good the whole way is: real val pictures through `analyse_slide`, compared with what is known of them.

Detection, outline, choice of the cell and class count together: a labelled cell that was not found is a wrong
answer. The scale is the pipeline's own estimate, as it is for pictures that arrive without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.domain import CallStatus, Cell, SlideAnalysis
from pipeline.geometry import Rect
from pipeline.taxonomy import GROUPS, CellClass, group_of, is_leukocyte
from pipeline.training.metrics import (
    Confusion,
    Detection,
    Overlap,
    confusion,
    detection,
    match_rects,
    overlap,
)
from pipeline.training.sources import Labelling
from pipeline.training.tables import LabelledBox, LabelRow, Split
from pipeline.training.targets import Tissue, class_of, map_of_mask

Analyse = Callable[[Path], SlideAnalysis]

MISSED = "not_found"
NAMES: tuple[str, ...] = (*(str(group) for group in GROUPS), MISSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one labelled cell."""

    truth: CellClass
    said: CellClass | None
    """by group; None where the cell was not found"""
    status: CallStatus | None


@dataclass(frozen=True, slots=True)
class PictureScore:
    """Everything measured on one picture."""

    answers: tuple[Answer, ...]
    detection: Detection | None
    """None where the picture's leukocytes are not all known"""
    cell: Overlap | None
    nucleus: Overlap | None


@dataclass(frozen=True, slots=True)
class SetReport:
    """One data set's figures."""

    data_set: str
    pictures: int
    labelled_cells: int
    accuracy: float | None
    """of the best guess, by group; not found is wrong"""
    macro_f1: float | None
    coverage: float | None
    """share of the labelled cells whose call was accepted"""
    accepted_accuracy: float | None
    """among those"""
    detection_recall: float | None
    """leukocyte boxes met at IoU ≥ 0.5"""
    detection_precision: float | None
    cell_dice: float | None
    cell_iou: float | None
    nucleus_dice: float | None
    nucleus_iou: float | None
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class EndToEndReport:
    """What `evaluate_end_to_end` returns."""

    sets: tuple[SetReport, ...]

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(asdict(self), indent=1)


def evaluate_end_to_end(
    rows: Iterable[LabelRow], analyse: Analyse, said: Callable[[str], None]
) -> EndToEndReport:
    """Return the figures by data set of the val rows among `rows`; `said` hears each set's name."""
    by_set: dict[str, list[LabelRow]] = {}
    for row in rows:
        if row.split is Split.VAL:
            by_set.setdefault(row.source.folder, []).append(row)
    return EndToEndReport(tuple(_set_reports(by_set, analyse, said)))


def _set_reports(
    by_set: dict[str, list[LabelRow]], analyse: Analyse, said: Callable[[str], None]
) -> Iterator[SetReport]:
    for data_set, rows in by_set.items():
        said(data_set)
        yield set_report(data_set, [score_picture(row, analyse(row.image)) for row in rows])


def score_picture(row: LabelRow, analysis: SlideAnalysis) -> PictureScore:
    """Return what one picture's analysis is worth against its row."""
    boxes = [box for box in row.boxes if box.is_leukocyte]
    known = bool(row.boxes) and row.source.boxes_complete and _is_leukocyte_picture(row)
    found = [cell for cell in analysis.cells if _counts(cell)]
    masks = _mask_overlaps(row, analysis.cells) if row.mask is not None else (None, None)
    return PictureScore(
        answers=tuple(_answers(row, boxes, analysis.cells)),
        detection=detection([c.instance.bbox_px0 for c in found], [_rect(b) for b in boxes])
        if known
        else None,
        cell=masks[0],
        nucleus=masks[1],
    )


def _counts(cell: Cell) -> bool:
    """Return whether a found cell claims to be a leukocyte: what detection is judged on."""
    return cell.call.status is not CallStatus.ARTEFACT and is_leukocyte(cell.call.cell_class)


def _is_leukocyte_picture(row: LabelRow) -> bool:
    cell_class = class_of(row.label) if row.source.labelling is Labelling.CENTRE else None
    return cell_class is None or is_leukocyte(cell_class)


def _answers(row: LabelRow, boxes: Sequence[LabelledBox], cells: Sequence[Cell]) -> Iterator[Answer]:
    if row.source.labelling in (Labelling.CENTRE, Labelling.MASK):
        truth = class_of(row.label)
        if truth is not None:
            yield _answer(truth, _nearest(cells, row.width_px / 2, row.height_px / 2))
        return
    pairs = {
        j: i for i, j in match_rects([c.instance.bbox_px0 for c in cells], [_rect(box) for box in boxes])
    }
    for index, box in enumerate(boxes):
        field = row.source.labelling is Labelling.FIELD
        truth = class_of(row.label if field else box.label)
        if truth is not None:
            yield _answer(truth, cells[pairs[index]] if index in pairs else None)


def _answer(truth: CellClass, cell: Cell | None) -> Answer:
    if cell is None:
        return Answer(group_of(truth), None, None)
    return Answer(group_of(truth), group_of(cell.call.cell_class), cell.call.status)


def _nearest(cells: Sequence[Cell], x: float, y: float) -> Cell | None:
    """Return the cell under the point, else the nearest whose box reaches it, else none."""
    reaching = [cell for cell in cells if cell.instance.bbox_px0.contains(x, y)]
    return min(reaching, key=lambda c: _distance2(c, x, y), default=None)


def _distance2(cell: Cell, x: float, y: float) -> float:
    centre_x, centre_y = cell.instance.centroid_px0
    return (centre_x - x) ** 2 + (centre_y - y) ** 2


def _rect(box: LabelledBox) -> Rect:
    return Rect(round(box.x), round(box.y), max(1, round(box.width)), max(1, round(box.height)))


def _mask_overlaps(row: LabelRow, cells: Sequence[Cell]) -> tuple[Overlap | None, Overlap | None]:
    """Return cell and nucleus overlap of all outlines together with the mask."""
    mask = cv2.imread(str(row.mask), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return None, None
    truth = map_of_mask(np.asarray(mask, np.uint8))
    known = truth != Tissue.IGNORED
    outlines = [cell.instance.contour_px0 for cell in cells]
    nuclei = [contour for cell in cells for contour in cell.instance.nucleus_contours_px0]
    return (
        overlap(_filled(outlines, truth.shape), (truth != Tissue.BACKGROUND) & known, known),
        overlap(_filled(nuclei, truth.shape), truth == Tissue.NUCLEUS, known),
    )


def _filled(contours: Sequence[NDArray[np.float32]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.uint8)
    for contour in contours:
        cv2.fillPoly(mask, [np.rint(contour).astype(np.int32)], 1)
    return mask > 0


def set_report(data_set: str, scores: Sequence[PictureScore]) -> SetReport:
    """Return the figures of one set's pictures: cells are pooled, overlaps averaged over pictures."""
    answers = [answer for score in scores for answer in score.answers]
    accepted = [answer for answer in answers if answer.status is CallStatus.ACCEPTED]
    table = confusion(
        [str(answer.truth) for answer in answers],
        [MISSED if answer.said is None else str(answer.said) for answer in answers],
        NAMES,
    )
    detections = [score.detection for score in scores if score.detection is not None]
    total = sum(detections, Detection(0, 0, 0))
    cells = [score.cell for score in scores if score.cell is not None]
    nuclei = [score.nucleus for score in scores if score.nucleus is not None]
    return SetReport(
        data_set=data_set,
        pictures=len(scores),
        labelled_cells=len(answers),
        accuracy=table.accuracy if answers else None,
        macro_f1=table.macro_f1 if answers else None,
        coverage=len(accepted) / len(answers) if answers else None,
        accepted_accuracy=_share([answer.said is answer.truth for answer in accepted]),
        detection_recall=total.recall if detections else None,
        detection_precision=total.precision if detections else None,
        cell_dice=_mean([o.dice for o in cells]),
        cell_iou=_mean([o.iou for o in cells]),
        nucleus_dice=_mean([o.dice for o in nuclei]),
        nucleus_iou=_mean([o.iou for o in nuclei]),
        confusion=table,
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
