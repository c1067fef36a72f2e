"""Scores the whole pipeline: real pictures through `analyse_slide`, compared with their labels.

Detection, outline, matching of the cell and class count together: a labelled cell that was not found counts
as wrong. The scale is the pipeline's own estimate, as it is for pictures that arrive without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import CallStatus, Cell, SlideAnalysis
from pipeline.model.errors import InputError, UsageError
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import CellClass, group_of, is_leukocyte, leaves_of
from pipeline.training.data.cell_metrics import Detection, Overlap, detection, match_rects, overlap
from pipeline.training.data.images import read_mask
from pipeline.training.data.intervals import ImageGroup
from pipeline.training.data.label_tables import LabelledBox, LabelRow
from pipeline.training.data.sources import Labelling
from pipeline.training.data.targets import Tissue, class_of, classes_of_boxes, map_of_mask

Analyse = Callable[[Path], SlideAnalysis]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The pipeline's answer for a labelled cell."""

    cell_class: CellClass
    """a group; the likeliest one where the call was withheld"""
    status: CallStatus
    probability: float
    """of that group, 0 to 1"""
    disagreement: float
    bbox_px0: Rect


@dataclass(frozen=True, slots=True)
class LabelledCell:
    """One labelled cell and its prediction."""

    truth: CellClass
    """a group"""
    prediction: Prediction | None
    """None where no cell was found there"""

    @property
    def correct(self) -> bool:
        """Whether the likeliest group is the true one."""
        return self.prediction is not None and self.prediction.cell_class is self.truth

    @property
    def accepted(self) -> bool:
        return self.prediction is not None and self.prediction.status is CallStatus.ACCEPTED


@dataclass(frozen=True, slots=True)
class PictureScore:
    """Everything measured on one picture."""

    data_set: str
    picture: str
    """its path below the data folder"""
    group: ImageGroup
    """near-duplicates share it"""
    cells: tuple[LabelledCell, ...]
    detection: Detection | None
    """None where the picture's leukocytes are not all known"""
    cell_overlap: Overlap | None
    nucleus_overlap: Overlap | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be read, or whose mask could not."""

    data_set: str
    picture: str
    reason: str


def score_row(row: LabelRow, data_root: Path, analyse: Analyse) -> PictureScore | Skipped:
    """Return the score of the picture's analysis, or why there is none."""
    try:
        return score_picture(row, data_root, analyse(row.image))
    except (InputError, UsageError) as error:  # the picture, or its mask
        return Skipped(row.source.folder, _name(row, data_root), error.sentence)


def _name(row: LabelRow, data_root: Path) -> str:
    if row.image.is_relative_to(data_root):
        return row.image.relative_to(data_root).as_posix()
    return f"{row.source.folder}/{row.image.name}"


def score_picture(row: LabelRow, data_root: Path, analysis: SlideAnalysis) -> PictureScore:
    """Return the score of one picture's analysis against its row.

    Raises: UsageError, where its mask cannot be read or is of another size.
    """
    boxes = [box for box in row.boxes if box.is_leukocyte]
    all_labelled = bool(row.boxes) and row.source.boxes_complete and _is_leukocyte_picture(row)
    found = [cell for cell in analysis.cells if _is_called_leukocyte(cell)]
    masks = (None, None) if row.mask is None else _mask_overlaps(row, row.mask, analysis)
    name = _name(row, data_root)
    return PictureScore(
        data_set=row.source.folder,
        picture=name,
        group=ImageGroup(row.source.scope, row.group or row.subject or name),
        cells=tuple(_labelled_cells(row, boxes, analysis.cells)),
        detection=detection([c.instance.bbox_px0 for c in found], [_rect(b) for b in boxes])
        if all_labelled
        else None,
        cell_overlap=masks[0],
        nucleus_overlap=masks[1],
    )


def _is_called_leukocyte(cell: Cell) -> bool:
    """Return whether the cell counts in detection."""
    return cell.call.status is not CallStatus.ARTEFACT and is_leukocyte(cell.call.cell_class)


def _is_leukocyte_picture(row: LabelRow) -> bool:
    cell_class = class_of(row.label) if row.source.labelling is Labelling.CENTRE else None
    return cell_class is None or is_leukocyte(cell_class)


def _labelled_cells(
    row: LabelRow, boxes: Sequence[LabelledBox], cells: Sequence[Cell]
) -> Iterator[LabelledCell]:
    if row.source.labelling in (Labelling.CENTRE, Labelling.MASK):
        truth = class_of(row.label)
        if truth is not None:
            yield _labelled_cell(truth, _nearest(cells, row.width_px / 2, row.height_px / 2))
        return
    pairs = {
        j: i for i, j in match_rects([c.instance.bbox_px0 for c in cells], [_rect(box) for box in boxes])
    }
    for index, truth in enumerate(classes_of_boxes(row)):
        if truth is not None:  # else the cell counts in detection only
            yield _labelled_cell(truth, cells[pairs[index]] if index in pairs else None)


def _labelled_cell(truth: CellClass, cell: Cell | None) -> LabelledCell:
    if cell is None:
        return LabelledCell(group_of(truth), None)
    cell_class = group_of(cell.call.cell_class)
    probability = sum(cell.call.probabilities[leaf] for leaf in leaves_of(cell_class))
    prediction = Prediction(
        cell_class, cell.call.status, min(1.0, probability), cell.call.disagreement, cell.instance.bbox_px0
    )
    return LabelledCell(group_of(truth), prediction)


def _nearest(cells: Sequence[Cell], x: float, y: float) -> Cell | None:
    """Return the cell under the point, else the nearest whose box reaches it, else none."""
    reaching = [cell for cell in cells if cell.instance.bbox_px0.contains(x, y)]
    return min(reaching, key=lambda c: _distance2(c, x, y), default=None)


def _distance2(cell: Cell, x: float, y: float) -> float:
    centre_x, centre_y = cell.instance.centroid_px0
    return (centre_x - x) ** 2 + (centre_y - y) ** 2


def _rect(box: LabelledBox) -> Rect:
    return Rect(round(box.x), round(box.y), max(1, round(box.width)), max(1, round(box.height)))


def _mask_overlaps(row: LabelRow, mask: Path, analysis: SlideAnalysis) -> tuple[Overlap, Overlap]:
    """Return cell and nucleus overlap with the mask.

    Where the mask shows one cell of several, the outline in the middle is compared, else all together.
    """
    truth = map_of_mask(read_mask(mask))
    if truth.shape != (analysis.meta.size_px0.height, analysis.meta.size_px0.width):
        raise UsageError(f"The mask {mask.name} has another size than its picture.", code="bad_mask")
    cells = analysis.cells
    known = truth != Tissue.IGNORED
    if row.source.labelling is Labelling.MASK:
        middle = _nearest(cells, row.width_px / 2, row.height_px / 2)
        cells = () if middle is None else (middle,)
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
