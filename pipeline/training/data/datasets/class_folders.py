"""Any set with a folder for each class: `<root>/<class>/<picture>`.

The part of a file name before `__` is the subject: `p07__0031.png` shows subject p07, in any folder. A
picture without `__` is its own group: name subjects where they are known, or pictures of one patient may be
in both splits.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets.picture_rows import pictures_in, size_px
from pipeline.training.data.datasets.splits import split_groups
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.data.sources import Labelling, Source

SUBJECT_END = "__"


def class_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders in `root` that hold pictures, sorted by name; none where `root` is no folder."""
    return tuple(folder for folder in _folders(root) if pictures_in(folder))


def read_class_folders(root: Path, mpp_um: float, val_share: float) -> tuple[LabelRow, ...]:
    """Return a row for each picture, sorted by class and name; the class is the folder's name.

    `mpp_um` is the pictures' scale. Raises: UsageError, where the layout is another or a class is empty.
    """
    folders = _folders(root)
    stray = pictures_in(root)
    if not folders or stray:
        raise UsageError(
            f"'{root.name}' has no folder for each class"
            + (f": {stray[0].name} is in none." if stray else "."),
            code="wrong_layout",
        )
    nested = [inner for folder in folders for inner in _folders(folder) if pictures_in(inner)]
    if nested:
        raise UsageError(
            f"{root.name}/{nested[0].parent.name} holds the folder {nested[0].name}: pictures have to be "
            "directly in the folder of their class.",
            code="wrong_layout",
        )
    empty = [folder.name for folder in folders if not pictures_in(folder)]
    if empty:
        raise UsageError(f"{root.name} has no pictures of {', '.join(empty)}.", code="empty_class")
    source = Source(root.name, mpp_um, "that of its owner", Labelling.CENTRE, boxes_complete=False)
    pictures = [path for folder in folders for path in pictures_in(folder)]
    labels: defaultdict[str, list[str]] = defaultdict(list)
    for path in pictures:
        labels[_group(path)].append(path.parent.name)
    sides = split_groups(labels, val_share)
    return tuple(_row(source, path, sides[_group(path)]) for path in pictures)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _subject(path: Path) -> str:
    subject, end, _ = path.stem.partition(SUBJECT_END)
    return subject if end else ""


def _group(path: Path) -> str:
    return _subject(path) or f"{path.parent.name}/{path.stem}"


def _row(source: Source, path: Path, split: Split) -> LabelRow:
    width_px, height_px = size_px(path)
    return LabelRow(
        source=source,
        image=path,
        mask=None,
        label=path.parent.name,
        label_raw=path.parent.name,
        split=split,
        group=_group(path),
        subject=_subject(path),
        width_px=width_px,
        height_px=height_px,
        boxes=(),
    )
