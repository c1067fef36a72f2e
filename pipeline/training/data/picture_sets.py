"""The data sets of recipes for whole pictures: their folders, and the class of each row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import (
    VAL_SHARE,
    DataPart,
    read_aml_lmu,
    read_cnmc,
    read_part,
)
from pipeline.training.data.datasets.aml_lmu import aml_root
from pipeline.training.data.datasets.cnmc import fold_root
from pipeline.training.data.label_tables import LabelRow

_PACK_FOLDERS = {"cnmc": "cnmc_subset", "all_idb2": "research_only/all_idb2"}
"""where the name in recipes is not the folder's"""


@dataclass(frozen=True, slots=True)
class PictureClass:
    """A class of a recipe, and the labels that belong to it, as published or as in the data pack."""

    name: str
    labels: tuple[str, ...]


def picture_rows(data_root: Path, name: str) -> tuple[LabelRow, ...]:
    """Return the rows of a data set, in its published layout if present, else in that of the data pack.

    Names are `aml_lmu`, `cnmc`, `all_idb2`, or a folder below the data folder: of the data pack, or with a
    folder for each class. Raises: UsageError, where it is missing, laid out otherwise, or leaks.
    """
    if not data_root.is_dir():
        raise UsageError(f"The data folder '{data_root.name}' is missing.", code="no_data_folder")
    if name == "aml_lmu" and aml_root(data_root) is not None:
        return read_aml_lmu(data_root, VAL_SHARE)
    if name == "cnmc" and fold_root(data_root) is not None:
        return read_cnmc(data_root)
    one_set = (data_root / "labels.csv").is_file()
    folder = "." if one_set else _PACK_FOLDERS.get(name, name)
    return read_part(DataPart(folder), data_root)


def class_index(row: LabelRow, classes: tuple[PictureClass, ...]) -> int | None:
    """Return the index of a row's class, by its label or else by the published one; None for no class."""
    for label in (row.label, row.label_raw):
        for index, one in enumerate(classes):
            if label in one.labels:
                return index
    return None
