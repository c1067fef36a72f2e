"""Cell classes: their names, parents, denominators and codes. Versioned: `VERSION` enters the spec digest.

There are two layers. The *leaves* are the classes of the networks. A *parent* is reported if its leaves
cannot be distinguished with certainty; it is also the label in less detailed data sets.

    neutrophil            ├ neutrophil_segmented  └ neutrophil_band
    immature_granulocyte  ├ metamyelocyte  ├ myelocyte  └ promyelocyte
    lymphocyte, monocyte, eosinophil, basophil, blast, erythroblast, platelet, artefact

LOINC codes are those of "<cells>/100 leukocytes in Blood". Source: LOINC 2.7x, property NFr, system Bld.
"""

from __future__ import annotations

from enum import StrEnum

VERSION = "1"


class CellClass(StrEnum):
    """A class of cells; the values appear in every output."""

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
    """number per 100 leukocytes, for nucleated red cells, which are not leukocytes"""
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
"""The classes of the networks, in the order of their outputs."""

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
"""The coarse classes in the order of the leaves; every leaf belongs to exactly one."""


def group_of(cell_class: CellClass) -> CellClass:
    """Return the coarse class: the parent of a leaf that has one, else the class itself."""
    return _PARENT.get(cell_class, cell_class)


def leaves_of(cell_class: CellClass) -> tuple[CellClass, ...]:
    """Return the leaves of a class; a leaf has only itself."""
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
