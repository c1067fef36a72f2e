"""Targets from labels: a set of leaves for the classifier, a label map for the segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import LEAVES, CellClass, leaves_of
from pipeline.training.data.label_tables import LabelledBox, LabelRow
from pipeline.training.data.sources import Labelling

LeafSet = NDArray[np.bool_]
"""bool (13,), in the order of `taxonomy.LEAVES`"""
LabelMap = NDArray[np.uint8]
"""uint8 (H, W) of `Tissue` values"""

_SYNONYMS = {
    "smudge": CellClass.ARTEFACT,
    "promyelocyte_bilobed": CellClass.PROMYELOCYTE,
    "monoblast": CellClass.BLAST,
    "myeloblast": CellClass.BLAST,
    "lymphoblast": CellClass.BLAST,
    "lymphocyte_atypical": CellClass.LYMPHOCYTE,
    "Platelets": CellClass.PLATELET,
    "RBC": CellClass.ARTEFACT,
}
_UNUSED = frozenset(
    {
        "mixed",
        "unlabelled",
        "wbc_unspecified",
        "not_identifiable",
        "WBC",
        "normal_leukocyte",
        "normal_lymphoid_precursor",
    }
)


class Tissue(IntEnum):
    """A pixel's label; the first three are the segmenter's classes."""

    BACKGROUND = 0
    CYTOPLASM = 1
    NUCLEUS = 2
    CELL = 3
    """cytoplasm or nucleus, unknown which"""
    IGNORED = 255


def class_of(label: str) -> CellClass | None:
    """Return the class of a data set's label; None where it has none.

    Raises: UsageError, for an unknown label.
    """
    if label in _UNUSED:
        return None
    try:
        return _SYNONYMS[label] if label in _SYNONYMS else CellClass(label)
    except ValueError as error:
        raise UsageError(f"'{label}' is no label of a cell that leukoflow knows.", code="no_label") from error


def classes_of_boxes(row: LabelRow) -> tuple[CellClass | None, ...]:
    """Return the class of each leukocyte box of a row, in order; None where it is unknown.

    The label of a field of one type holds for all its boxes, unless it has more boxes than names: it is
    unknown which box has no name.
    """
    leukocytes = [box for box in row.boxes if box.is_leukocyte]
    match row.source.labelling:
        case Labelling.BOXES:
            return tuple(class_of(box.label) for box in leukocytes)
        case Labelling.FIELD if len(leukocytes) <= len(row.label_raw.split(",")):
            return (class_of(row.label),) * len(leukocytes)
        case _:
            return (None,) * len(leukocytes)


def leaf_set(cell_class: CellClass) -> LeafSet:
    """Return the leaves that a class allows."""
    allowed = leaves_of(cell_class)
    return np.array([leaf in allowed for leaf in LEAVES], dtype=np.bool_)


NUCLEUS_LEVEL = 200
CYTOPLASM_LEVEL = 60
"""bccd's masks have soft edges: above 200 nucleus, 60 to 200 cytoplasm. Source: the data pack's SOURCES.md"""
_EDGE_PX = 3


def map_of_mask(mask: NDArray[np.uint8]) -> LabelMap:
    """Return the label map of a grey mask: 255 nucleus, 128 cytoplasm, 0 background, or with soft edges.

    A soft edge between nucleus and background has the grey values of cytoplasm: a rim that opening
    with 3 × 3 pixels removes is ignored.
    """
    tissue = np.full(mask.shape, Tissue.BACKGROUND, np.uint8)
    grey = ((mask >= CYTOPLASM_LEVEL) & (mask <= NUCLEUS_LEVEL)).astype(np.uint8)
    solid = cv2.morphologyEx(grey, cv2.MORPH_OPEN, np.ones((_EDGE_PX, _EDGE_PX), np.uint8))
    tissue[grey > 0] = Tissue.IGNORED
    tissue[solid > 0] = Tissue.CYTOPLASM
    tissue[mask > NUCLEUS_LEVEL] = Tissue.NUCLEUS
    return tissue


CORE = 0.75
"""the ellipse of this share of a leukocyte's box is labelled as cell"""
RIM = 1.12
"""outside this multiple of the box is labelled as background"""


def map_of_boxes(height_px: int, width_px: int, boxes: Sequence[LabelledBox]) -> LabelMap:
    """Return the label map of an image in which every leukocyte has a box."""
    tissue = np.full((height_px, width_px), Tissue.BACKGROUND, np.uint8)
    leukocytes = [box for box in boxes if box.is_leukocyte]
    for box in leukocytes:
        x, y = box.centre
        half_width, half_height = box.width * RIM / 2, box.height * RIM / 2
        top, left = max(0, round(y - half_height)), max(0, round(x - half_width))
        tissue[top : round(y + half_height), left : round(x + half_width)] = Tissue.IGNORED
    for box in leukocytes:
        _ellipse(tissue, box.centre, (box.width * CORE / 2, box.height * CORE / 2))
    return tissue


CENTRE_UM = 2.5
"""a single-cell image shows cell within this of its centre: a lymphocyte's radius is 4 µm"""


def map_of_centre(height_px: int, width_px: int, mpp_um: float) -> LabelMap:
    """Return the label map of a single-cell image without mask or boxes."""
    tissue = np.full((height_px, width_px), Tissue.IGNORED, np.uint8)
    radius = CENTRE_UM / mpp_um
    _ellipse(tissue, (width_px / 2, height_px / 2), (radius, radius))
    return tissue


def map_without_cells(height_px: int, width_px: int) -> LabelMap:
    """Return the label map of an image of platelets or red cells only."""
    return np.full((height_px, width_px), Tissue.BACKGROUND, np.uint8)


def unmasked_boxes_ignored(tissue: LabelMap, boxes: Sequence[LabelledBox]) -> LabelMap:
    """Return the map with leukocyte boxes ignored that contain no mask."""
    out = tissue.copy()
    for box in boxes:
        if not box.is_leukocyte:
            continue
        region = out[
            max(0, round(box.y)) : round(box.y + box.height), max(0, round(box.x)) : round(box.x + box.width)
        ]
        if not np.isin(region, (Tissue.CYTOPLASM, Tissue.NUCLEUS)).any():
            region[...] = Tissue.IGNORED
    return out


def _ellipse(tissue: LabelMap, centre: tuple[float, float], half_axes: tuple[float, float]) -> None:
    cv2.ellipse(
        tissue,
        (round(centre[0]), round(centre[1])),
        (max(1, round(half_axes[0])), max(1, round(half_axes[1]))),
        0.0,
        0.0,
        360.0,
        int(Tissue.CELL),
        thickness=-1,
    )
