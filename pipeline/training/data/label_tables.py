"""Reads `labels.csv` into typed rows, and checks that no group is in two splits."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.sources import Source

COLUMNS = (
    "path",
    "label",
    "split",
    "subject",
    "width",
    "height",
    "mask_path",
    "boxes_json",
    "group",
    "label_raw",
)


class Split(StrEnum):
    """Train, val and test as published; a labels.csv has the first two."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    """published as a test set: used neither for training nor for validation"""


_SPLITS = {"train": Split.TRAIN, "val": Split.VAL}


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box in pixels of its image, origin top left, not rounded."""

    label: str
    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)"""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def is_leukocyte(self) -> bool:
        return self.label not in ("RBC", "Platelets")


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One image of a data set."""

    source: Source
    image: Path
    mask: Path | None
    label: str
    label_raw: str
    split: Split
    group: str
    subject: str
    width_px: int
    height_px: int
    boxes: tuple[LabelledBox, ...]
    annotations: tuple[str, ...] = ()
    """the labels of several annotations, in order and as published; "" for none"""


def read_table(data_root: Path, source: Source) -> tuple[LabelRow, ...]:
    """Return the rows of `<data_root>/<folder>/labels.csv`, in the file's order, split by the file, or by the
    source's `val_subjects`.

    Raises: UsageError, where the folder, a column or a value is missing, or the split leaks.
    """
    folder = data_root / source.folder
    table = folder / "labels.csv"
    try:
        text = table.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"No labels.csv for {source.folder} under the data folder.", code="no_table"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{source.folder}/labels.csv is no text in UTF-8.", code="bad_row") from error
    try:
        rows = _rows(source, folder, csv.DictReader(text.splitlines()))
    except csv.Error as error:  # a field beyond the reader's limit, an unclosed quote
        raise UsageError(f"{source.folder}/labels.csv is no table.", code="bad_row") from error
    require_no_leaks(rows)
    return rows


def _rows(source: Source, folder: Path, reader: csv.DictReader[str]) -> tuple[LabelRow, ...]:
    absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if absent:
        raise UsageError(f"{source.folder}/labels.csv has no column {', '.join(absent)}.", code="no_column")
    return tuple(_row(source, folder, line, values) for line, values in enumerate(reader, start=2))


def require_no_leaks(rows: Iterable[LabelRow]) -> None:
    """Return where no group and no subject is in two splits. Raises: UsageError, otherwise.

    Data sets of the same patients share one namespace.
    """
    sides: dict[tuple[str, str, str], tuple[Split, str]] = {}
    for row in rows:
        for key in _names(row):
            side, folder = sides.setdefault(key, (row.split, row.source.folder))
            if side is not row.split:
                place = " and ".join(dict.fromkeys((folder, row.source.folder)))
                raise UsageError(
                    f"The split of {place} leaks: a {key[1]} has images in {side} and in {row.split}.",
                    code="leaking_split",
                )


def subjects_in_one_split(rows: Sequence[LabelRow]) -> tuple[LabelRow, ...]:
    """Return the rows with every subject in one split: the one with most of its images; in a tie, train.

    For sets that show the same subjects and were split independently.
    """
    counts: dict[tuple[str, str], Counter[Split]] = {}
    for row in rows:
        counts.setdefault((row.source.scope, row.subject), Counter())[row.split] += 1
    return tuple(
        replace(row, split=max(Split, key=counts[row.source.scope, row.subject].__getitem__))
        if row.subject
        else row
        for row in rows
    )


def _names(row: LabelRow) -> list[tuple[str, str, str]]:
    named = (("group", row.group), ("subject", row.subject))
    return [(row.source.scope, kind, name) for kind, name in named if name]


def _row(source: Source, folder: Path, line: int, values: Mapping[str, str]) -> LabelRow:
    try:
        return LabelRow(
            source=source,
            image=folder / values["path"],
            mask=folder / values["mask_path"] if values["mask_path"] else None,
            label=values["label"],
            label_raw=values["label_raw"],
            split=_split(source, values),
            group=values["group"],
            subject=values["subject"],
            width_px=int(values["width"]),
            height_px=int(values["height"]),
            boxes=_boxes(values["boxes_json"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{source.folder}/labels.csv, line {line}, cannot be read.", code="bad_row"
        ) from error


def _split(source: Source, values: Mapping[str, str]) -> Split:
    listed = _SPLITS[values["split"]]
    if not source.val_subjects:
        return listed
    return Split.VAL if values["subject"] in source.val_subjects else Split.TRAIN


def _boxes(text: str) -> tuple[LabelledBox, ...]:
    if not text:
        return ()
    return tuple(
        LabelledBox(str(box["label"]), float(box["x"]), float(box["y"]), float(box["w"]), float(box["h"]))
        for box in json.loads(text)
    )
