"""The data sets that the shipped networks learn from: where they lie, their licence and their scale.

Scales marked "red cells" take the median red-cell box as 7.5 µm (Source: Bain, Blood Cells, 6th ed.); the
others are the makers' optics, or neutrophils taken as 13.5 µm. All are nominal: training varies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import UsageError


class Labelling(StrEnum):
    """What a row's label speaks of."""

    CENTRE = "centre"
    """the cell in the middle of the image"""
    MASK = "mask"
    """the cell under the mask"""
    FIELD = "field"
    """the leukocytes of the field, all of one type unless mixed"""
    BOXES = "boxes"
    """nothing: each box has a label of its own"""


@dataclass(frozen=True, slots=True)
class Source:
    """One folder of the data pack."""

    folder: str
    mpp_um: float
    licence: str
    labelling: Labelling
    boxes_complete: bool
    """whether what lies outside every box of an image that has boxes is background"""


_SOURCES = (
    Source("pbc_barcelona", 0.106, "CC BY 4.0", Labelling.CENTRE, boxes_complete=True),  # red cells 70.9 px
    Source("bccd", 0.073, "MIT", Labelling.FIELD, boxes_complete=True),  # red cells 102.7 px
    Source("zheng_d1_jtsc", 0.17, "GPL-3.0", Labelling.MASK, boxes_complete=False),  # neutrophils 76.7 px
    Source("draaslan", 0.154, "MIT", Labelling.BOXES, boxes_complete=True),  # red cells 48.8 px
    Source("chula_wbc", 0.095, "MIT", Labelling.BOXES, boxes_complete=True),  # red cells about 80 px
    Source("chula_wbc_crops", 0.095, "MIT", Labelling.BOXES, boxes_complete=True),
    Source("aml_lmu", 0.0725, "CC BY 3.0", Labelling.CENTRE, boxes_complete=False),  # 400 px are 29 µm
    Source("bm_mll_munich", 0.086, "CC BY 4.0", Labelling.CENTRE, boxes_complete=False),  # 3.45 µm / 40
)
SOURCES: dict[str, Source] = {source.folder: source for source in _SOURCES}


def source_of(folder: str) -> Source:
    """Return what is known of a folder.

    Raises: UsageError, for a folder whose weights may not be shipped or whose scale is unknown.
    """
    if folder not in SOURCES:
        raise UsageError(
            f"'{folder}' is no data set to train on; there are {', '.join(SOURCES)}.", code="unknown-data-set"
        )
    return SOURCES[folder]
