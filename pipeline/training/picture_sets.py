"""The data sets of recipes for whole pictures: where they lie, and which row belongs to which class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.training.sources import Source, known_source
from pipeline.training.tables import LabelRow, read_table


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
    """its folder in the pack"""


_SETS = {
    name: PictureSet(name, known_source(folder))
    for name, folder in (
        ("aml_lmu", "aml_lmu"),
        ("pbc_barcelona", "pbc_barcelona"),
        ("cnmc", "cnmc_subset"),
        ("all_idb2", "research_only/all_idb2"),
    )
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
    """Return the place of a row's class, by its label or else by the published one; None for no class."""
    for label in (row.label, row.label_raw):
        for index, one in enumerate(classes):
            if label in one.labels:
                return index
    return None
