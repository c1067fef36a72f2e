"""A folder for each class."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import Layout, find_data, read_class_folders
from pipeline.training.data.label_tables import Split, require_no_leaks
from tests.support.dataset_trees import class_tree, draw

TEN = [f"{n}.png" for n in range(10)]


def test_the_folder_is_the_label_and_pictures_of_all_kinds_are_read(tmp_path: Path) -> None:
    root = class_tree(
        tmp_path / "own", {"b": ["1.png", "2.jpg", "3.TIF", "4.bmp"], "a": ["1.jpeg", "2.tiff"]}
    )
    (root / "a" / "notes.txt").write_text("no picture")
    assert find_data(root) is Layout.CLASS_FOLDERS
    rows = read_class_folders(root, 0.1, 0.2)
    assert [(row.label, row.image.name) for row in rows] == [
        ("a", "1.jpeg"), ("a", "2.tiff"), ("b", "1.png"), ("b", "2.jpg"), ("b", "3.TIF"), ("b", "4.bmp"),
    ]  # fmt: skip
    assert {row.source.mpp_um for row in rows} == {0.1}


def test_pictures_below_a_class_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "own", {"a": TEN, "b": TEN})
    draw(root / "a" / "more" / "1.png")
    with pytest.raises(UsageError, match="own/a holds the folder more"):
        read_class_folders(root, 0.1, 0.2)


def test_both_sides_hold_every_class(tmp_path: Path) -> None:
    rows = read_class_folders(class_tree(tmp_path / "own", {"a": TEN, "b": TEN}), 0.1, 0.2)
    val = [row.label for row in rows if row.split is Split.VAL]
    assert (val.count("a"), val.count("b")) == (2, 2)


def test_the_split_does_not_hang_on_where_the_folder_lies(tmp_path: Path) -> None:
    names = {"a": TEN, "b": TEN}
    first = read_class_folders(class_tree(tmp_path / "x" / "own", names), 0.1, 0.3)
    second = read_class_folders(class_tree(tmp_path / "y" / "else", names), 0.1, 0.3)
    assert [row.split for row in first] == [row.split for row in second]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), min_size=1, max_size=60),
    st.floats(0.1, 0.5),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_subject_is_on_one_side_whatever_classes_it_shows(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, int]], share: float
) -> None:
    names: defaultdict[str, list[str]] = defaultdict(list)
    for number, (label, subject) in enumerate(cells):
        names[label].append(f"p{subject}__{number}.bmp")
    rows = read_class_folders(class_tree(tmp_path_factory.mktemp("own"), dict(names)), 0.1, share)
    assert len(rows) == len(cells)
    sides: defaultdict[str, set[Split]] = defaultdict(set)
    for row in rows:
        sides[row.image.name.split("__")[0]].add(row.split)
    assert all(len(found) == 1 for found in sides.values())
    require_no_leaks(rows)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "own", {"a": TEN})
    (root / "b").mkdir()
    with pytest.raises(UsageError, match="own has no pictures of b"):
        read_class_folders(root, 0.1, 0.2)


def test_a_picture_outside_the_classes_is_named(tmp_path: Path) -> None:
    root = class_tree(tmp_path / "own", {"a": TEN})
    draw(root / "lost.png")
    with pytest.raises(UsageError, match=r"lost\.png is in none"):
        read_class_folders(root, 0.1, 0.2)
