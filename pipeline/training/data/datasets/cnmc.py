"""C-NMC 2019 as published: three folds of cut-out cells named after their subjects, and a test set.

    C-NMC_training_data/fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_{all|hem}.bmp
    C-NMC_test_prelim_phase_data/<n>.bmp, C-NMC_test_prelim_phase_data_labels.csv:
        Patient_ID,new_names,labels        UID_57_29_1_all.bmp,1.bmp,1     (1: all, 0: hem)

Subjects in health are `H<n>`. Archives unpack with these folders one or two deep, and Kaggle's copy calls
them `training_data` and `validation_data`. The final test set was published without labels: it is not read.

Source: Gupta and Gupta, C-NMC Leukemia dataset, TCIA 2019, doi 10.7937/tcia.2019.dc64i46r.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets.picture_rows import pictures_in, size_px
from pipeline.training.data.label_tables import LabelRow, Split, require_no_leaks
from pipeline.training.data.sources import C_NMC, known_source

LABEL_OF_CLASS = {"all": "lymphoblast", "hem": "normal_lymphoid_precursor"}
"""The data pack's names of the two classes."""
TRAINING = "C-NMC_training_data"
PRELIMINARY = "C-NMC_test_prelim_phase_data"
PRELIMINARY_LABELS = "C-NMC_test_prelim_phase_data_labels.csv"
_CLASS_OF_DIGIT = {"1": "all", "0": "hem"}
_NAME = re.compile(r"UID_(?P<subject>H?\d+)_(?P<image>\d+)_(?P<cell>\d+)_(?P<label>all|hem)\.bmp")


@dataclass(frozen=True, slots=True)
class _Cell:
    path: Path
    subject: str
    label: str


def fold_root(root: Path) -> Path | None:
    """Return the folder that holds `fold_<n>`: `root` or one of those published below it; else None."""
    for name in (".", TRAINING, f"{TRAINING}/{TRAINING}", "training_data", f"C-NMC_Leukemia/{TRAINING}",
                 "C-NMC_Leukemia/training_data"):  # fmt: skip
        if _folds(root / name):
            return root / name
    return None


def read_cnmc(root: Path, val_fold: int = 0) -> tuple[LabelRow, ...]:
    """Return a row for each cell: of the given fold val, of the others train, of the preliminary set test.

    Raises: UsageError, where the layout is another, a fold lacks a class, a name or a line cannot be read,
    or a subject is in two splits.
    """
    folder = fold_root(root)
    if folder is None:
        raise UsageError(f"'{root.name}' has no folders fold_0, fold_1, fold_2.", code="wrong_layout")
    folds = {fold: _cells(path) for fold, path in _folds(folder).items()}
    if val_fold not in folds or len(folds) == 1:
        names = ", ".join(f"fold_{fold}" for fold in folds)
        raise UsageError(f"C-NMC cannot be validated on fold_{val_fold}: there is {names}.", code="no_fold")
    rows = [
        _row(cell, Split.VAL if fold == val_fold else Split.TRAIN)
        for fold, cells in folds.items()
        for cell in cells
    ]
    rows += [_row(cell, Split.TEST) for cell in _preliminary(root)]
    require_no_leaks(rows)
    return tuple(rows)


def _folds(folder: Path) -> dict[int, Path]:
    found = {n: folder / f"fold_{n}" for n in range(3)}
    return {n: path for n, path in found.items() if path.is_dir()}


def _cells(fold: Path) -> list[_Cell]:
    cells: list[_Cell] = []
    for label in LABEL_OF_CLASS:
        pictures = pictures_in(fold / label)
        if not pictures:
            raise UsageError(f"C-NMC has no pictures in {fold.name}/{label}.", code="empty_class")
        cells += [_Cell(path, *_named(path.name, label)) for path in pictures]
    return cells


def _named(name: str, label: str) -> tuple[str, str]:
    """(subject, label)"""
    named = _NAME.fullmatch(name)
    if named is None or named["label"] != label:
        raise UsageError(
            f"{name} is not named as in C-NMC: {label}/UID_<subject>_<image>_<cell>_{label}.bmp.",
            code="wrong_layout",
        )
    return named["subject"], label


def _preliminary(root: Path) -> list[_Cell]:
    table = _preliminary_table(root)
    if table is None:
        if _preliminary_folder(root) is not None:
            raise UsageError(
                f"{PRELIMINARY} was found without {PRELIMINARY_LABELS}: add it, or remove the folder.",
                code="no_table",
            )
        return []
    folder = _preliminary_folder(root) or table.parent
    lines = _lines(table)
    cells: list[_Cell] = []
    for line, values in enumerate(lines, start=2):
        subject_name, picture, digit = (values.get(key) for key in ("Patient_ID", "new_names", "labels"))
        if not subject_name or not picture or digit not in _CLASS_OF_DIGIT or Path(picture).name != picture:
            raise UsageError(f"{PRELIMINARY_LABELS}, line {line}, cannot be read.", code="bad_row")
        cells.append(_Cell(folder / picture, *_named(subject_name, _CLASS_OF_DIGIT[digit])))
    unnamed = {path.name for path in pictures_in(folder)} - {cell.path.name for cell in cells}
    if unnamed:
        raise UsageError(
            f"{PRELIMINARY_LABELS} has no label for {len(unnamed)} pictures, {min(unnamed)} among them.",
            code="no_label",
        )
    return cells


def _lines(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table.name} cannot be read as a table.", code="bad_row") from error


def _places(root: Path) -> tuple[Path, ...]:
    kaggle = root / "C-NMC_Leukemia"
    return root, root.parent, root / "validation_data", kaggle, kaggle / "validation_data", root / PRELIMINARY


def _preliminary_table(root: Path) -> Path | None:
    found = (place / PRELIMINARY_LABELS for place in _places(root))
    return next((path for path in found if path.is_file()), None)


def _preliminary_folder(root: Path) -> Path | None:
    found = (place / PRELIMINARY for place in reversed(_places(root)))
    return next((path for path in found if pictures_in(path)), None)


def _row(cell: _Cell, split: Split) -> LabelRow:
    width_px, height_px = size_px(cell.path)
    return LabelRow(
        source=known_source(C_NMC),
        image=cell.path,
        mask=None,
        label=LABEL_OF_CLASS[cell.label],
        label_raw=cell.label,
        split=split,
        group=f"cnmc-{cell.subject}",
        subject=f"cnmc-{cell.subject}",
        width_px=width_px,
        height_px=height_px,
        boxes=(),
    )
