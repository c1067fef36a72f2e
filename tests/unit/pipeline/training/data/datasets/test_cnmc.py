"""C-NMC 2019 in its published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import Layout, find_data, read_cnmc
from pipeline.training.data.label_tables import Split
from tests.support.dataset_trees import cnmc_tree, draw, preliminary

TRAINING = "C-NMC_training_data"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return cnmc_tree(tmp_path / "C-NMC")


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_the_named_fold_is_val(published: Path, fold: int) -> None:
    rows = read_cnmc(published, fold)
    val = [row for row in rows if row.split is Split.VAL]
    assert (len(rows), len(val)) == (36, 12)
    assert {row.image.parent.parent.name for row in val} == {f"fold_{fold}"}


def test_labels_and_subjects_are_those_of_the_names(published: Path) -> None:
    rows = {row.image.name: row for row in read_cnmc(published)}
    sick, healthy = rows["UID_1_7_2_all.bmp"], rows["UID_H1_7_2_hem.bmp"]
    assert (sick.subject, sick.label, sick.label_raw) == ("cnmc-1", "lymphoblast", "all")
    assert (healthy.subject, healthy.label) == ("cnmc-H1", "normal_lymphoid_precursor")


@pytest.mark.parametrize("layout", [".", TRAINING, "training_data", f"C-NMC_Leukemia/{TRAINING}"])
def test_the_folds_are_found_where_archives_put_them(tmp_path: Path, layout: str) -> None:
    drawn = cnmc_tree(tmp_path / "drawn")
    root = tmp_path / "root"
    shutil.copytree(drawn / TRAINING, root / layout)
    assert find_data(root) is Layout.CNMC
    assert len(read_cnmc(root)) == 36


LINES = ("UID_57_29_1_all.bmp,1.bmp,1", "UID_H49_35_1_hem.bmp,2.bmp,0")


def test_the_preliminary_test_set_is_neither_train_nor_val(published: Path) -> None:
    preliminary(published, *LINES)
    rows = [row for row in read_cnmc(published) if row.split is Split.TEST]
    assert [(row.subject, row.label_raw, row.image.name) for row in rows] == [
        ("cnmc-57", "all", "1.bmp"),
        ("cnmc-H49", "hem", "2.bmp"),
    ]
    assert all(row.image.is_file() for row in rows)


def test_the_preliminary_test_set_is_found_in_kaggles_copy(tmp_path: Path) -> None:
    drawn = cnmc_tree(tmp_path / "drawn")
    shutil.move(drawn / TRAINING, tmp_path / "kaggle" / "C-NMC_Leukemia" / "training_data")
    (tmp_path / "kaggle" / "C-NMC_Leukemia" / "validation_data").mkdir()
    preliminary(tmp_path / "kaggle" / "C-NMC_Leukemia" / "validation_data", *LINES)
    rows = read_cnmc(tmp_path / "kaggle")
    assert len({row.subject for row in rows if row.split is Split.TEST}) == 2


def test_the_preliminary_test_set_is_found_one_folder_deeper(published: Path) -> None:
    preliminary(published, *LINES)
    flat = published / "C-NMC_test_prelim_phase_data"
    flat.rename(published / "unpacked")
    flat.mkdir()
    (published / "unpacked").rename(flat / flat.name)
    rows = [row for row in read_cnmc(published) if row.split is Split.TEST]
    assert [row.image.is_file() for row in rows] == [True, True]


@pytest.mark.parametrize(
    "line",
    [
        "UID_57_29_1_all.bmp,3.bmp,0",
        "UID_57_29_1_all.bmp,../3.bmp,1",
        "UID_57_29_1_all.bmp,3.bmp,",
        "UID_57_29_1_all.bmp",
        "x,3.bmp,1",
    ],
)
def test_a_bad_line_of_labels_is_refused(published: Path, line: str) -> None:
    preliminary(published, *LINES)
    table = published / "C-NMC_test_prelim_phase_data_labels.csv"
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(UsageError, match=r"line 4|not named"):
        read_cnmc(published)


def test_labels_that_are_no_text_are_refused(published: Path) -> None:
    preliminary(published, *LINES)
    (published / "C-NMC_test_prelim_phase_data_labels.csv").write_bytes(b"Patient_ID,new_names,labels\n\xff")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_cnmc(published)


def test_a_test_picture_without_label_is_named(published: Path) -> None:
    preliminary(published, *LINES)
    draw(published / "C-NMC_test_prelim_phase_data" / "9.bmp")
    with pytest.raises(UsageError, match=r"no label for 1 pictures, 9\.bmp"):
        read_cnmc(published)


def test_test_pictures_without_their_table_are_refused(published: Path) -> None:
    preliminary(published, *LINES)
    (published / "C-NMC_test_prelim_phase_data_labels.csv").unlink()
    with pytest.raises(UsageError, match="without C-NMC_test_prelim"):
        read_cnmc(published)


def test_a_subject_in_two_folds_is_a_leak(published: Path) -> None:
    draw(published / TRAINING / "fold_2" / "all" / "UID_1_9_9_all.bmp")
    with pytest.raises(UsageError, match="leaks"):
        read_cnmc(published, 0)


def test_a_test_subject_among_the_folds_is_a_leak(published: Path) -> None:
    preliminary(published, "UID_1_29_1_all.bmp,1.bmp,1")
    with pytest.raises(UsageError, match="leaks"):
        read_cnmc(published, 0)


def test_an_empty_class_is_named(published: Path) -> None:
    shutil.rmtree(published / TRAINING / "fold_1" / "hem")
    with pytest.raises(UsageError, match="no pictures in fold_1/hem"):
        read_cnmc(published)


def test_a_fold_that_is_not_there_is_refused(published: Path) -> None:
    with pytest.raises(UsageError, match="fold_3"):
        read_cnmc(published, 3)


@pytest.mark.parametrize("name", ["UID_1_7_1_hem.bmp", "cell.bmp", "UID_x_7_1_all.bmp"])
def test_a_name_that_is_not_as_published_is_refused(published: Path, name: str) -> None:
    draw(published / TRAINING / "fold_0" / "all" / name)
    with pytest.raises(UsageError, match=f"{name} is not named"):
        read_cnmc(published)
