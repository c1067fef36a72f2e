"""Cell classes: their names, parents, denominators and codes. Versioned: `VERSION` enters the spec digest.

Two layers. The *leaves* are what the networks tell apart; a *parent* is reported where the leaves below it
cannot be told apart with certainty, and it is the label of data sets that are no finer.

    neutrophil            ├ neutrophil_segmented  └ neutrophil_band
    immature_granulocyte  ├ metamyelocyte  ├ myelocyte  └ promyelocyte
    lymphocyte, monocyte, eosinophil, basophil, blast, erythroblast, platelet, artefact

LOINC codes are those of "<cells>/100 leukocytes in Blood". Source: LOINC 2.7x, property NFr, system Bld.
"""

from __future__ import annotations

from enum import StrEnum

VERSION = "1"


class CellClass(StrEnum):
    """A name that a cell can carry in a result; the values are the contract of every output."""

    NEUTROPHIL = "neutrophil"
    NEUTROPHIL_SEGMENTED = "neutrophil_segmented"
    NEUTROPHIL_BAND = "neutrophil_band"
    LYMPHOCYTE = "lymphocyte"
    MONOCYTE = "monocyte"
    EOSINOPHIL = "eosinophil"
    BASOPHIL = "basophil"
    IMMATURE_GRANULOCYTE = "immature_granulocyte"
    METAMYELOCYTE = "metamyelocyte"
    MYELOCYTE = "myelocyte"
    PROMYELOCYTE = "promyelocyte"
    BLAST = "blast"
    ERYTHROBLAST = "erythroblast"
    PLATELET = "platelet"
    ARTEFACT = "artefact"


class Denominator(StrEnum):
    """What a count is divided by."""

    LEUKOCYTES = "leukocytes"
    """percent of the accepted leukocytes"""
    PER_100_LEUKOCYTES = "per_100_leukocytes"
    """number seen while 100 leukocytes were counted: nucleated red cells are not leukocytes"""
    NONE = "none"
    """counted, not divided"""


LEAVES: tuple[CellClass, ...] = (
    CellClass.NEUTROPHIL_SEGMENTED,
    CellClass.NEUTROPHIL_BAND,
    CellClass.LYMPHOCYTE,
    CellClass.MONOCYTE,
    CellClass.EOSINOPHIL,
    CellClass.BASOPHIL,
    CellClass.METAMYELOCYTE,
    CellClass.MYELOCYTE,
    CellClass.PROMYELOCYTE,
    CellClass.BLAST,
    CellClass.ERYTHROBLAST,
    CellClass.PLATELET,
    CellClass.ARTEFACT,
)
"""What the networks tell apart, in the order of their outputs."""

CHILDREN: dict[CellClass, tuple[CellClass, ...]] = {
    CellClass.NEUTROPHIL: (CellClass.NEUTROPHIL_SEGMENTED, CellClass.NEUTROPHIL_BAND),
    CellClass.IMMATURE_GRANULOCYTE: (
        CellClass.METAMYELOCYTE,
        CellClass.MYELOCYTE,
        CellClass.PROMYELOCYTE,
    ),
}

_PARENT = {child: parent for parent, children in CHILDREN.items() for child in children}

GROUPS: tuple[CellClass, ...] = tuple(dict.fromkeys(_PARENT.get(leaf, leaf) for leaf in LEAVES))
"""The coarse classes, each leaf in exactly one, in the order of the leaves."""


def group_of(cell_class: CellClass) -> CellClass:
    """Return the coarse class: the parent of a leaf that has one, else the class itself."""
    return _PARENT.get(cell_class, cell_class)


def leaves_of(cell_class: CellClass) -> tuple[CellClass, ...]:
    """Return the leaves below a class; a leaf is its own."""
    return CHILDREN.get(cell_class, (cell_class,))


def denominator_of(cell_class: CellClass) -> Denominator:
    """Return what a count of this class is divided by. Source: CLSI H20-A2 (200-cell differential)."""
    if cell_class is CellClass.ERYTHROBLAST:
        return Denominator.PER_100_LEUKOCYTES
    if cell_class in (CellClass.PLATELET, CellClass.ARTEFACT):
        return Denominator.NONE
    return Denominator.LEUKOCYTES


def is_leukocyte(cell_class: CellClass) -> bool:
    """Return whether a cell of this class counts among the leukocytes of the differential."""
    return denominator_of(cell_class) is Denominator.LEUKOCYTES


LOINC: dict[CellClass, str] = {
    CellClass.NEUTROPHIL: "26511-6",
    CellClass.NEUTROPHIL_SEGMENTED: "26505-8",
    CellClass.NEUTROPHIL_BAND: "26508-2",
    CellClass.LYMPHOCYTE: "26478-8",
    CellClass.MONOCYTE: "26485-3",
    CellClass.EOSINOPHIL: "26450-7",
    CellClass.BASOPHIL: "30180-4",
    CellClass.METAMYELOCYTE: "28541-1",
    CellClass.MYELOCYTE: "26498-6",
    CellClass.PROMYELOCYTE: "26524-9",
    CellClass.BLAST: "26446-5",
}
