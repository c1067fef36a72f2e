"""Training samples: crops and fields at one scale, decoded once, with their targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import cv2
import numpy as np

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import CellClass
from pipeline.training.data.images import read_mask, read_rgb, resized, resized_labels
from pipeline.training.data.label_tables import LabelledBox, LabelRow
from pipeline.training.data.sources import Labelling
from pipeline.training.data.targets import (
    LabelMap,
    LeafSet,
    class_of,
    classes_of_boxes,
    leaf_set,
    map_of_boxes,
    map_of_centre,
    map_of_mask,
    map_without_cells,
    unmasked_boxes_ignored,
)

MARGIN = 1.6
"""side of the stored crop over that of the crop: room for scaling and shifting it"""
RED_CELLS_PER_IMAGE = 2
BACKGROUND_POINTS_PER_IMAGE = 1
BACKGROUND_DISTANCE_UM = 9.0
"""of a background point from the centre of any leukocyte's box"""
OTHER_CELL_UM = 7.0
"""red cells nearer than this to a leukocyte's centre are not used as artefacts"""


@dataclass(frozen=True, slots=True)
class CropSample:
    """A crop with a margin around it, at the crop's scale; the picture's edge is replicated."""

    folder: str
    cell_class: CellClass
    leaves: LeafSet
    pixels: Rgb
    """square, `MARGIN` times the crop's side, the cell in the centre"""


class MapKind(StrEnum):
    """What a label map was made from."""

    EXACT = "exact"
    BOXES = "boxes"
    CENTRE = "centre"


@dataclass(frozen=True, slots=True)
class FieldSample:
    """One picture with its label map, at `segmenting.STORE_MPP_UM`."""

    folder: str
    kind: MapKind
    pixels: Rgb
    tissue: LabelMap
    boxes_px: tuple[Rect, ...] = field(default=())
    """of the leukocytes, in pixels of `pixels`"""


@dataclass(frozen=True, slots=True)
class LabelledPoint:
    """A point of an image, in its pixels, with the class of what is there."""

    x: float
    y: float
    cell_class: CellClass


def crop_samples(rows: Iterable[LabelRow], crop_px: int, crop_mpp_um: float) -> Iterator[CropSample]:
    """Yield crops of every row: labelled cells, and artefacts where there are boxes of red cells."""
    for row in rows:
        points = list(points_of(row))
        if not points:
            continue
        factor = row.source.mpp_um / crop_mpp_um
        picture = resized(read_rgb(row.image), factor)
        side = round(crop_px * MARGIN)
        for point in points:
            pixels = cut_out(picture, (point.x * factor, point.y * factor), side)
            yield CropSample(row.source.folder, point.cell_class, leaf_set(point.cell_class), pixels)


def points_of(row: LabelRow) -> Iterator[LabelledPoint]:
    """Yield the row's labelled cells, then platelets, red cells and background by its boxes."""
    yield from _labelled_cells(row)
    leukocytes = [box for box in row.boxes if box.is_leukocyte]
    yield from (
        LabelledPoint(*box.centre, CellClass.PLATELET) for box in row.boxes if box.label == "Platelets"
    )
    if any(box.label == "RBC" for box in row.boxes):
        yield from _red_cells(row, leukocytes)
        yield from _background_points(row, leukocytes)


def _labelled_cells(row: LabelRow) -> Iterator[LabelledPoint]:
    match row.source.labelling:
        case Labelling.FIELD | Labelling.BOXES:
            leukocytes = (box for box in row.boxes if box.is_leukocyte)
            for box, box_class in zip(leukocytes, classes_of_boxes(row), strict=True):
                if box_class is not None:
                    yield LabelledPoint(*box.centre, box_class)
        case Labelling.CENTRE | Labelling.MASK:
            cell_class = class_of(row.label)
            if cell_class is None:
                return
            if row.source.labelling is Labelling.CENTRE:
                yield LabelledPoint(row.width_px / 2, row.height_px / 2, cell_class)
            elif row.mask is not None:
                yield LabelledPoint(*_centre_of_mask(row), cell_class)


def _centre_of_mask(row: LabelRow) -> tuple[float, float]:
    assert row.mask is not None
    rows, columns = np.nonzero(read_mask(row.mask))
    if rows.size == 0:
        return row.width_px / 2, row.height_px / 2
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def _far(x: float, y: float, boxes: Sequence[LabelledBox], distance_px: float) -> bool:
    return all(np.hypot(box.centre[0] - x, box.centre[1] - y) >= distance_px for box in boxes)


def _red_cells(row: LabelRow, leukocytes: Sequence[LabelledBox]) -> Iterator[LabelledPoint]:
    distance_px = OTHER_CELL_UM / row.source.mpp_um
    free = [box for box in row.boxes if box.label == "RBC" and _far(*box.centre, leukocytes, distance_px)]
    step = max(1, len(free) // RED_CELLS_PER_IMAGE)
    yield from (LabelledPoint(*box.centre, CellClass.ARTEFACT) for box in free[::step][:RED_CELLS_PER_IMAGE])


def _background_points(row: LabelRow, leukocytes: Sequence[LabelledBox]) -> Iterator[LabelledPoint]:
    """Yield corners of the image far from any leukocyte or platelet; red cells may lie there."""
    distance_px = BACKGROUND_DISTANCE_UM / row.source.mpp_um
    corners = [(x * row.width_px, y * row.height_px) for x in (0.2, 0.8) for y in (0.2, 0.8)]
    platelets = [box for box in row.boxes if box.label == "Platelets"]
    free = [
        corner
        for corner in corners
        if _far(*corner, leukocytes, distance_px) and _far(*corner, platelets, 2.0 / row.source.mpp_um)
    ]
    yield from (LabelledPoint(*corner, CellClass.ARTEFACT) for corner in free[:BACKGROUND_POINTS_PER_IMAGE])


def cut_out(picture: Rgb, centre: tuple[float, float], side: int) -> Rgb:
    """Return uint8 (side, side, 3) around (x, y) in pixels of the picture; its edge is replicated."""
    half = side / 2
    shift = np.array([[1.0, 0.0, half - centre[0]], [0.0, 1.0, half - centre[1]]])
    out = cv2.warpAffine(
        picture,
        shift,
        (side, side),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(out, np.uint8)


def field_samples(rows: Iterable[LabelRow], store_mpp_um: float) -> Iterator[FieldSample]:
    """Yield the picture and label map, at `store_mpp_um`, of every row that locates its cells."""
    for row in rows:
        kind = _map_kind(row)
        if kind is None:
            continue
        factor = row.source.mpp_um / store_mpp_um
        picture = resized(read_rgb(row.image), factor)
        boxes_px = tuple(
            Rect(
                round(box.x * factor),
                round(box.y * factor),
                max(1, round(box.width * factor)),
                max(1, round(box.height * factor)),
            )
            for box in row.boxes
            if box.is_leukocyte
        )
        tissue = resized_labels(_native_map(row, kind), factor)
        yield FieldSample(row.source.folder, kind, picture, tissue, boxes_px)


def _map_kind(row: LabelRow) -> MapKind | None:
    if row.mask is not None:
        return MapKind.EXACT
    if row.boxes and row.source.boxes_complete:
        return MapKind.BOXES
    if row.source.labelling is Labelling.CENTRE:
        return MapKind.CENTRE if row.label not in ("smudge", "not_identifiable") else None
    return None


def _native_map(row: LabelRow, kind: MapKind) -> LabelMap:
    if kind == MapKind.EXACT and row.mask is not None:
        return unmasked_boxes_ignored(map_of_mask(read_mask(row.mask)), row.boxes)
    if kind == MapKind.BOXES:
        return map_of_boxes(row.height_px, row.width_px, row.boxes)
    if class_of(row.label) is CellClass.PLATELET:
        return map_without_cells(row.height_px, row.width_px)
    return map_of_centre(row.height_px, row.width_px, row.source.mpp_um)
