"""The data sets: their folders, licences and scales, and whether weights trained on them may be shipped.

Scales marked "red cells" take the median red-cell box as 7.5 µm (Source: Bain, Blood Cells, 6th ed.); the
others are the makers' optics, or neutrophils taken as 13.5 µm, lymphoblasts as 12 µm. All are nominal:
training varies them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.model.errors import UsageError


class Labelling(StrEnum):
    """What a row's label refers to."""

    CENTRE = "centre"
    """the cell in the middle of the image"""
    MASK = "mask"
    """the cell under the mask"""
    FIELD = "field"
    """the leukocytes of the field, all of one type unless mixed"""
    BOXES = "boxes"
    """each box has its own label; the row's is not used"""


@dataclass(frozen=True, slots=True)
class Source:
    """One data set: a folder of the data pack, or a set in its published layout."""

    folder: str
    mpp_um: float
    licence: str
    labelling: Labelling
    boxes_complete: bool
    """whether what lies outside every box of an image that has boxes is background"""
    shippable: bool = True
    """whether a bundle may hold weights trained on it; never where it was given for research only"""
    patients: str = ""
    """a name shared by the sets that show the same patients or slides"""
    val_subjects: frozenset[str] = frozenset()
    """where such sets were split independently: the subjects that are val in all of them; the tables' own
    split is not used"""

    @property
    def scope(self) -> str:
        """The namespace of subjects and groups: equal names in it are the same subject or group."""
        return self.patients or self.folder


CHULA = "chula"
AML_LMU = "AML-Cytomorphology_LMU"
C_NMC = "C-NMC_2019"

_CHULA_VAL = frozenset({"slide-10", "slide-1B", "slide-57"})
"""The crops' own split by slide; chula_wbc has slides 8, 14, 53 in val, whose crops are in train."""

_SOURCES = (
    Source("pbc_barcelona", 0.106, "CC BY 4.0", Labelling.CENTRE, boxes_complete=True),  # red cells 70.9 px
    Source("bccd", 0.073, "MIT", Labelling.FIELD, boxes_complete=True),  # red cells 102.7 px
    Source("zheng_d1_jtsc", 0.17, "GPL-3.0", Labelling.MASK, boxes_complete=False),  # neutrophils 76.7 px
    Source("draaslan", 0.154, "MIT", Labelling.BOXES, boxes_complete=True),  # red cells 48.8 px
    *(
        Source(
            folder,
            0.095,  # red cells about 80 px
            "MIT",
            Labelling.BOXES,
            boxes_complete=True,
            patients=CHULA,
            val_subjects=_CHULA_VAL,
        )
        for folder in ("chula_wbc", "chula_wbc_crops")
    ),
    Source("aml_lmu", 0.0725, "CC BY 3.0", Labelling.CENTRE, boxes_complete=False, patients=AML_LMU),  # 29 µm
    Source("bm_mll_munich", 0.086, "CC BY 4.0", Labelling.CENTRE, boxes_complete=False),  # 3.45 µm / 40
)
SOURCES: dict[str, Source] = {source.folder: source for source in _SOURCES}
"""The data sets that shipped networks may be trained on."""

_NOT_SHIPPED = (
    Source(
        "cnmc_subset",
        0.058,  # blasts 207 px
        "CC BY 3.0 (second-hand statement)",
        Labelling.CENTRE,
        boxes_complete=False,
        shippable=False,
        patients=C_NMC,
    ),
    Source(
        "research_only/all_idb2",
        0.1,  # blasts 120 px
        "research only",
        Labelling.CENTRE,
        boxes_complete=False,
        shippable=False,
    ),
)
_PUBLISHED = (
    Source(AML_LMU, 0.0725, "CC BY 3.0", Labelling.CENTRE, boxes_complete=False, patients=AML_LMU),
    Source(C_NMC, 0.058, "CC BY 3.0", Labelling.CENTRE, boxes_complete=False, patients=C_NMC),
)
ALL_SOURCES: dict[str, Source] = {source.folder: source for source in (*_SOURCES, *_NOT_SHIPPED, *_PUBLISHED)}
"""Every data set that is known by name, including those for research only."""


def source_of(folder: str) -> Source:
    """Return the shippable data set in a folder.

    Raises: UsageError, for a set whose weights may not be shipped, or an unknown one.
    """
    if folder not in SOURCES:
        raise UsageError(
            f"'{folder}' is no data set to train on; there are {', '.join(SOURCES)}.", code="unknown_data_set"
        )
    return SOURCES[folder]


def known_source(folder: str) -> Source:
    """Return the data set in a folder, shippable or not. Raises: UsageError, for an unknown one."""
    if folder not in ALL_SOURCES:
        raise UsageError(
            f"'{folder}' is no known data set; there are {', '.join(ALL_SOURCES)}.", code="unknown_data_set"
        )
    return ALL_SOURCES[folder]


def trained_patients(folders: Iterable[str], trained_on: Iterable[str]) -> list[str]:
    """Return, sorted, those of `folders` that share patients with the data sets in `trained_on`."""
    scopes = {_scope(folder) for folder in trained_on}
    return sorted(folder for folder in set(folders) if _scope(folder) in scopes)


def _scope(folder: str) -> str:
    return ALL_SOURCES[folder].scope if folder in ALL_SOURCES else folder
