"""Unreadable pictures are skipped, counted and named; copies on two sides are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import read_class_folders, readable
from pipeline.training.data.datasets.picture_rows import size_px
from pipeline.training.data.images import read_rgb
from pipeline.training.data.label_tables import LabelRow, Split
from tests.support.dataset_trees import class_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [f"{n:02}.{ending}" for n in range(6) for ending in ("png", "jpg", "bmp", "tif")]
    return class_tree(tmp_path / "own", {"a": names, "b": names})


def _rows(root: Path) -> tuple[LabelRow, ...]:
    return read_class_folders(root, 0.1, 0.25)


def _on(rows: tuple[LabelRow, ...], split: Split) -> Path:
    return next(row.image for row in rows if row.split is split and row.image.suffix == ".png")


def test_whole_pictures_all_stay(root: Path) -> None:
    found = readable(_rows(root))
    assert (found.rows, found.skipped, found.sentence) == (_rows(root), (), "")


@pytest.mark.parametrize("name", ["00.png", "00.jpg", "00.bmp", "00.tif"])
@pytest.mark.parametrize("kept", [0.0, 0.6, 0.95])
def test_a_cut_off_picture_is_skipped_and_named(root: Path, name: str, kept: float) -> None:
    broken = root / "a" / name
    content = broken.read_bytes()
    broken.write_bytes(content[: int(kept * len(content))])
    rows = _rows(root)
    found = readable(rows)
    assert found.sentence == f"1 picture was skipped, unreadable: {name}"
    assert [row.image for row in found.skipped] == [broken]
    assert len(found.rows) == len(rows) - 1


def test_text_and_missing_pictures_are_skipped_and_named(root: Path) -> None:
    rows = _rows(root)
    (root / "a" / "01.png").write_text("not a picture")
    (root / "b" / "02.png").unlink()
    assert readable(rows).sentence == "2 pictures were skipped, unreadable: 01.png, 02.png"


def test_of_many_names_ten_are_told(root: Path) -> None:
    rows = _rows(root)
    for row in rows[:12]:
        row.image.write_bytes(b"")
    found = readable(rows)
    assert found.sentence.startswith("12 pictures were skipped")
    assert found.sentence.endswith(" and 2 more")
    assert len(found.skipped) == 12
    assert size_px(rows[0].image) == (0, 0)


def test_where_more_than_half_is_broken_the_folder_is_doubted(root: Path) -> None:
    rows = _rows(root)
    for row in rows[: len(rows) // 2 + 1]:
        row.image.unlink()
    with pytest.raises(UsageError, match=r"25 of 48 pictures cannot be read"):
        readable(rows)


def test_a_copy_on_the_other_side_is_a_leak_under_any_name_and_format(root: Path) -> None:
    rows = _rows(root)
    original, copy = _on(rows, Split.TRAIN), _on(rows, Split.VAL)
    assert cv2.imwrite(str(copy.with_suffix(".bmp")), read_rgb(original)[:, :, ::-1])
    copy.with_suffix(".bmp").rename(copy)
    with pytest.raises(UsageError, match=r"leaks.*same picture"):
        readable(rows)


def test_a_copy_on_the_same_side_is_none(root: Path) -> None:
    rows = _rows(root)
    first, second = [row.image for row in rows if row.split is Split.TRAIN and row.image.suffix == ".png"][:2]
    shutil.copyfile(first, second)
    assert readable(rows).rows == rows
