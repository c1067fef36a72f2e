"""The data sets of recipes for whole pictures: where they lie, and which row belongs to which class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.training.sources import Labelling, Source, source_of
from pipeline.training.tables import LabelRow, read_table

RESEARCH_NOTE = (
    "For research only: the licence of {folders} does not allow to ship what is trained on it. "
    "No bundle can be made of this run."
)


@dataclass(frozen=True, slots=True)
class PictureClass:
    """A class of a recipe, and the labels that mean it: as published, or as the pack's tables say it."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A data set by the name that recipes use."""

    name: str
    source: Source
    research_only: bool


_CNMC = Source(
    "cnmc_subset", 0.05, "CC BY 3.0 (second-hand statement)", Labelling.CENTRE, boxes_complete=False
)
_IDB2 = Source("research_only/all_idb2", 0.07, "for research only", Labelling.CENTRE, boxes_complete=False)
_SETS = {
    "aml_lmu": PictureSet("aml_lmu", source_of("aml_lmu"), research_only=False),
    "pbc_barcelona": PictureSet("pbc_barcelona", source_of("pbc_barcelona"), research_only=False),
    "cnmc": PictureSet("cnmc", _CNMC, research_only=False),
    "all_idb2": PictureSet("all_idb2", _IDB2, research_only=True),
}


def picture_set_of(name: str) -> PictureSet:
    """Return the data set of that name. Raises: UsageError, where there is none."""
    if name not in _SETS:
        raise UsageError(
            f"'{name}' is no data set of pictures; there are {', '.join(_SETS)}.", code="unknown-data-set"
        )
    return _SETS[name]


def picture_rows(data_root: Path, picture_set: PictureSet) -> tuple[LabelRow, ...]:
    """Return the rows of a data set. Raises: UsageError, where it is missing or leaks."""
    return read_table(data_root, picture_set.source)


def class_index(row: LabelRow, classes: tuple[PictureClass, ...]) -> int | None:
    """Return the place of a row's class, by its label or else by the label as published; None for no class."""
    for label in (row.label, row.label_raw):
        for index, one in enumerate(classes):
            if label in one.labels:
                return index
    return None
