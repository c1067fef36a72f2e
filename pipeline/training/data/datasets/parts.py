"""Reads one or several data sets, each in its own layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets.aml_lmu import read_aml_lmu
from pipeline.training.data.datasets.class_folders import read_class_folders
from pipeline.training.data.datasets.cnmc import read_cnmc
from pipeline.training.data.datasets.layouts import Layout, find_data
from pipeline.training.data.label_tables import LabelRow, read_table, require_no_leaks, subjects_in_one_split
from pipeline.training.data.sources import ALL_SOURCES, known_source

VAL_SHARE = 0.2
"""of the groups, where a layout has no split; as in TensorFlow's tutorial, since the paper does not say"""
CLASS_FOLDERS_MPP_UM = 0.1
"""nominal; recipes for whole pictures do not use the scale"""


@dataclass(frozen=True, slots=True)
class DataPart:
    """One data set of a combination."""

    folder: str
    """below the data folder; `.` is the data folder itself"""
    layout: Layout | None = None
    """None: as found; else the reader of this layout says what does not fit"""


def read_parts(parts: Sequence[DataPart], data_root: Path) -> tuple[LabelRow, ...]:
    """Return the rows of all parts, in order. The pictures are not opened: see `readable`.

    Raises: UsageError, where a folder is missing or laid out otherwise, a class has no pictures, or the split
    leaks.
    """
    return joined([row for part in parts for row in read_part(part, data_root)])


def joined(rows: Sequence[LabelRow]) -> tuple[LabelRow, ...]:
    """Return the rows of several sets, in order; subjects that two share are put into one split.

    Raises: UsageError, where the split leaks, or two sets show the same patients and do not name them.
    """
    _refuse_overlaps(rows)
    together = subjects_in_one_split(rows)
    require_no_leaks(together)
    return together


def read_part(part: DataPart, data_root: Path) -> tuple[LabelRow, ...]:
    """Return the rows of one part. Raises: UsageError, as `read_parts`."""
    root = data_root / part.folder
    match part.layout or find_data(root):
        case Layout.TABLE:
            if part.folder in ALL_SOURCES:
                return read_table(data_root, known_source(part.folder))
            return _read_pack_folder(root)
        case Layout.CNMC:
            return read_cnmc(root)
        case Layout.AML_LMU:
            return read_aml_lmu(root, VAL_SHARE)
        case Layout.CLASS_FOLDERS:
            return read_class_folders(root, CLASS_FOLDERS_MPP_UM, VAL_SHARE)
        case Layout.PACK:
            raise UsageError(
                f"'{root.name}' holds several data sets; name those to be read.", code="several_data_sets"
            )


def _read_pack_folder(root: Path) -> tuple[LabelRow, ...]:
    """Return the rows of a data folder that is itself a set of the data pack, under its name there."""
    path = root.absolute()
    folder = next(
        (name for name in ALL_SOURCES if path.parts[-len(Path(name).parts) :] == Path(name).parts), None
    )
    if folder is None:
        raise UsageError(
            f"'{path.name}' has a labels.csv, but is no set of the data pack; there are "
            f"{', '.join(ALL_SOURCES)}.",
            code="unknown_data_set",
        )
    return read_table(path.parents[len(Path(folder).parts) - 1], known_source(folder))


def _refuse_overlaps(rows: Sequence[LabelRow]) -> None:
    """Raises: UsageError, for two sets of the same patients without subjects: their split could leak."""
    nameless = dict.fromkeys((row.source.scope, row.source.folder) for row in rows if not row.subject)
    for (scope, first), (other_scope, second) in combinations(nameless, 2):
        if scope == other_scope:
            raise UsageError(
                f"{first} and {second} show the same patients and name none: take one of them.",
                code="leaking_split",
            )
