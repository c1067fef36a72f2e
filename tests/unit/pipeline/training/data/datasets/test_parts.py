"""Several sets together: layouts found, labels mapped, leaks across sets refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import (
    DataPart,
    Layout,
    find_data,
    read_parts,
    readable,
)
from pipeline.training.data.label_tables import Split, require_no_leaks
from pipeline.training.data.picture_sets import PictureClass, class_index
from pipeline.training.data.sources import ALL_SOURCES, SOURCES
from tests.support.dataset_trees import aml_tree, class_tree, cnmc_tree
from tests.support.drawn_pack import DrawnPack

TASK = (PictureClass("normal", ("hem", "lymphocytes")), PictureClass("all", ("all", "blasts")))
TEN = [f"{n}.png" for n in range(10)]


def test_two_sets_are_mapped_into_one_task(tmp_path: Path) -> None:
    cnmc_tree(tmp_path / "C-NMC")
    class_tree(tmp_path / "own", {"blasts": TEN, "lymphocytes": TEN, "debris": TEN})
    rows = read_parts((DataPart("C-NMC", Layout.CNMC), DataPart("own")), tmp_path)
    places = Counter((row.source.folder, class_index(row, TASK)) for row in rows)
    assert places == {
        ("C-NMC_2019", 0): 18,
        ("C-NMC_2019", 1): 18,
        ("own", 0): 10,
        ("own", 1): 10,
        ("own", None): 10,
    }


def test_labels_are_mapped_by_their_published_name_or_by_ours(tmp_path: Path) -> None:
    cnmc_tree(tmp_path)
    rows = read_parts((DataPart("."),), tmp_path)
    ours = (PictureClass("normal", ("normal_lymphoid_precursor",)), PictureClass("all", ("lymphoblast",)))
    assert [class_index(row, ours) for row in rows] == [class_index(row, TASK) for row in rows]


def test_the_data_folder_itself_may_be_a_set_of_the_pack(tmp_path: Path) -> None:
    pack = DrawnPack(tmp_path)
    pack.add("research_only/all_idb2", "lymphoblast", "train", label_raw="1")
    pack.add("cnmc_subset", "lymphoblast", "val")
    pack.write()
    (idb2,) = read_parts((DataPart("."),), tmp_path / "research_only" / "all_idb2")
    assert (idb2.source.folder, idb2.source.shippable) == ("research_only/all_idb2", False)
    (subset,) = read_parts((DataPart("cnmc_subset"),), tmp_path)
    assert subset.source.folder == "cnmc_subset"


def test_only_what_is_given_for_research_or_second_hand_may_not_be_shipped() -> None:
    kept = {folder for folder, source in ALL_SOURCES.items() if not source.shippable}
    assert kept == {"research_only/all_idb2", "cnmc_subset"}
    assert not kept & set(SOURCES)


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The data folder 'nowhere' is missing"):
        read_parts((DataPart("nowhere"),), tmp_path)


def test_a_folder_without_layout_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "own" / "deep" / "deeper").mkdir(parents=True)
    with pytest.raises(UsageError, match="'own' has no layout of a data set"):
        read_parts((DataPart("own"),), tmp_path)


def test_another_layout_than_the_one_named_is_one_sentence(tmp_path: Path) -> None:
    class_tree(tmp_path / "own", {"a": TEN})
    with pytest.raises(UsageError, match="'own' has no folders fold_0"):
        read_parts((DataPart("own", Layout.CNMC),), tmp_path)


def test_pictures_beside_no_table_are_no_classes_where_a_table_is_named(tmp_path: Path) -> None:
    class_tree(tmp_path / "bccd", {"images": TEN, "masks": TEN})
    with pytest.raises(UsageError, match=r"No labels\.csv for bccd"):
        read_parts((DataPart("bccd", Layout.TABLE),), tmp_path)


def test_a_folder_of_several_sets_asks_for_their_names(tmp_path: Path) -> None:
    pack = DrawnPack(tmp_path)
    pack.add("bccd", "neutrophil", "train")
    assert find_data(pack.write()) is Layout.PACK
    with pytest.raises(UsageError, match="several data sets"):
        read_parts((DataPart("."),), tmp_path)


def test_slides_of_two_sets_that_were_split_apart_are_on_the_side_that_the_source_names(
    tmp_path: Path,
) -> None:
    pack = DrawnPack(tmp_path)
    for subject, split in (("slide-8", "val"), ("slide-57", "train"), ("slide-10", "val")):
        pack.add("chula_wbc", "mixed", split, subject=subject)
    for subject, split in (("slide-8", "train"), ("slide-57", "val"), ("slide-42", "train")):
        pack.add("chula_wbc_crops", "mixed", split, subject=subject, group=f"crops-{subject}")
    pack.write()
    rows = read_parts((DataPart("chula_wbc"), DataPart("chula_wbc_crops")), tmp_path)
    assert [row.split for row in rows] == [
        Split.TRAIN,
        Split.VAL,
        Split.VAL,
        Split.TRAIN,
        Split.VAL,
        Split.TRAIN,
    ]


def test_the_subset_of_the_pack_goes_with_its_subjects_in_the_whole_set(tmp_path: Path) -> None:
    cnmc_tree(tmp_path / "C-NMC")
    pack = DrawnPack(tmp_path)
    pack.add("cnmc_subset", "lymphoblast", "train", subject="cnmc-1", group="cnmc-1", label_raw="all")
    pack.write()
    parts = (DataPart("C-NMC"), DataPart("cnmc_subset"))
    rows = read_parts(parts, tmp_path)
    assert {row.split for row in rows if row.subject == "cnmc-1"} == {Split.VAL}


def test_two_sets_of_the_same_patients_without_names_are_refused(tmp_path: Path) -> None:
    folder = aml_tree(tmp_path, [1])
    pack = DrawnPack(tmp_path)
    pack.add("aml_lmu", "basophil", "train")
    pack.write()
    with pytest.raises(UsageError, match="show the same patients and name none"):
        read_parts((DataPart(folder.name), DataPart("aml_lmu")), tmp_path)


def test_a_picture_that_two_sets_share_is_a_leak_where_it_stands_on_two_sides(tmp_path: Path) -> None:
    rows = read_parts((DataPart("own"),), class_tree(tmp_path / "own", {"a": TEN}).parent)
    val = next(row for row in rows if row.split is Split.VAL)
    again = tmp_path / "again" / "a"
    again.mkdir(parents=True)
    (again / "only.png").write_bytes(val.image.read_bytes())
    both = read_parts((DataPart("own"), DataPart("again")), tmp_path)
    with pytest.raises(UsageError, match="own and again leaks"):
        readable(both)


def test_no_reader_makes_a_leak(tmp_path: Path) -> None:
    cnmc_tree(tmp_path / "C-NMC")
    aml_tree(tmp_path, range(1, 30, 4))
    class_tree(tmp_path / "own", {"a": [f"p{n % 7}__{n}.png" for n in range(30)], "b": TEN})
    parts = tuple(DataPart(name) for name in ("C-NMC", "AML-Cytomorphology_LMU", "own"))
    rows = read_parts(parts, tmp_path)
    require_no_leaks(rows)
    assert readable(rows).rows == rows
    for folder in {row.source.folder for row in rows}:
        assert {row.split for row in rows if row.source.folder == folder} == {Split.TRAIN, Split.VAL}
