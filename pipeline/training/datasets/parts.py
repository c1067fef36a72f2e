"""Several data sets put together: each with its layout, and with a mapping of its labels to ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.training.datasets.aml_lmu import LabelRule, read_aml_lmu
from pipeline.training.datasets.class_folders import read_class_folders
from pipeline.training.datasets.cnmc import ByFold, BySubject, read_cnmc
from pipeline.training.datasets.layouts import Layout, find_data
from pipeline.training.sources import ALL_SOURCES, known_source
from pipeline.training.tables import LabelRow, Split, read_table, refuse_leaks, settled


@dataclass(frozen=True, slots=True)
class Reading:
    """How a published layout is read; a labels.csv says all by itself."""

    val_share: float = 0.2
    """part of the groups that is val: AML-Cytomorphology_LMU, class folders"""
    cnmc_val: ByFold | BySubject = field(default_factory=ByFold)
    aml_label: LabelRule = LabelRule.FIRST
    mpp_um: float = 0.1
    """scale of class folders"""


@dataclass(frozen=True, slots=True)
class DataPart:
    """One data set of a combination."""

    folder: str
    """below the data folder; `.` is the data folder itself"""
    layout: Layout | None = None
    """None: as found; else the reader of this layout says what does not fit"""
    classes: Mapping[str, str] | None = None
    """from a label as published (`all`, `BAS`), or as leukoflow names it (`lymphoblast`), to a class of the
    task; None: labels stay as leukoflow names them"""
    reading: Reading = field(default_factory=Reading)


def read_parts(parts: Sequence[DataPart], data_root: Path) -> tuple[LabelRow, ...]:
    """Return the rows of all parts, in order; `label` is the class that the part's mapping gives.

    Subjects that two sets share are settled on one side. The pictures are not opened: see `readable`.

    Raises: UsageError, where a folder is missing or laid out otherwise, a label has no class, a class no
    pictures, or the split leaks.
    """
    rows = tuple(row for part in parts for row in _mapped(part, read_part(part, data_root)))
    _refuse_overlaps(rows)
    together = settled(rows)
    refuse_leaks(together)
    return together


def read_part(part: DataPart, data_root: Path) -> tuple[LabelRow, ...]:
    """Return the rows of one part with the labels that the set has. Raises: UsageError, as `read_parts`."""
    root = data_root / part.folder
    match part.layout or find_data(root):
        case Layout.TABLE:
            if part.folder in ALL_SOURCES:
                return read_table(data_root, known_source(part.folder))
            return _read_pack_folder(root)
        case Layout.CNMC:
            return read_cnmc(root, part.reading.cnmc_val)
        case Layout.AML_LMU:
            return read_aml_lmu(root, part.reading.aml_label, part.reading.val_share)
        case Layout.CLASS_FOLDERS:
            return read_class_folders(root, part.reading.mpp_um, part.reading.val_share)
        case Layout.PACK:
            raise UsageError(
                f"'{root.name}' holds several data sets; name those to be read.", code="several-data-sets"
            )


def _read_pack_folder(root: Path) -> tuple[LabelRow, ...]:
    """The data folder is itself a set of the pack, called as there."""
    whole = root.absolute()
    folder = next(
        (name for name in ALL_SOURCES if whole.parts[-len(Path(name).parts) :] == Path(name).parts), None
    )
    if folder is None:
        raise UsageError(
            f"'{whole.name}' has a labels.csv, but is no set of the data pack; there are "
            f"{', '.join(ALL_SOURCES)}.",
            code="unknown-data-set",
        )
    return read_table(whole.parents[len(Path(folder).parts) - 1], known_source(folder))


def class_indices(rows: Iterable[LabelRow], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the place of each row's label in `classes`.

    Raises: UsageError, for a label that is no class, or a class without a picture in train.
    """
    listed = tuple(rows)
    strange = sorted({row.label for row in listed} - set(classes))
    if strange:
        raise UsageError(
            f"The labels {', '.join(strange)} are none of the classes {', '.join(classes)}.",
            code="unmapped-label",
        )
    learned = Counter(row.label for row in listed if row.split is Split.TRAIN)
    empty = [name for name in classes if not learned[name]]
    if empty:
        raise UsageError(f"There are no pictures of {', '.join(empty)} to learn from.", code="empty-class")
    place = {name: index for index, name in enumerate(classes)}
    return tuple(place[row.label] for row in listed)


def _mapped(part: DataPart, rows: Iterable[LabelRow]) -> Iterable[LabelRow]:
    for row in rows:
        if part.classes is None:
            yield row
            continue
        named = part.classes.get(row.label_raw) or part.classes.get(row.label)
        if named is None:
            raise UsageError(
                f"{row.source.folder}: the label '{row.label_raw}' ({row.label}) has no class; there are "
                f"classes for {', '.join(part.classes)}.",
                code="unmapped-label",
            )
        yield replace(row, label=named)


def _refuse_overlaps(rows: Sequence[LabelRow]) -> None:
    """Two sets of the same patients that name no subjects cannot be kept apart."""
    nameless = dict.fromkeys((row.source.scope, row.source.folder) for row in rows if not row.subject)
    for (scope, first), (other_scope, second) in combinations(nameless, 2):
        if scope == other_scope:
            raise UsageError(
                f"{first} and {second} show the same patients and name none: take one of them.",
                code="leaking-split",
            )
