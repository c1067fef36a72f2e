"""AML-Cytomorphology_LMU in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.model.errors import UsageError
from pipeline.training.data.datasets import Layout, find_data, read_aml_lmu
from pipeline.training.data.datasets.aml_lmu import LABEL_OF_CODE
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.data.targets import class_of
from tests.support.dataset_trees import SIDE, aml_tree


def _read(root: Path) -> dict[str, LabelRow]:
    return {row.image.name: row for row in read_aml_lmu(root, 0.2)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder around a whole tree."""
    root = tmp_path_factory.mktemp("aml")
    aml_tree(root)
    return root


@pytest.mark.parametrize("below", ["", "AML-Cytomorphology_LMU"])
def test_the_layout_is_found_from_the_folder_or_the_one_around_it(published: Path, below: str) -> None:
    assert find_data(published / below) is Layout.AML_LMU
    assert len(_read(published / below)) == 15 * 44


def test_every_code_has_a_name_that_the_taxonomy_knows(published: Path) -> None:
    rows = _read(published).values()
    assert {row.label_raw for row in rows} == set(LABEL_OF_CODE)
    assert all(class_of(row.label) is not None for row in rows)
    assert {(row.width_px, row.height_px) for row in rows} == {(SIDE, SIDE)}


def test_blocks_of_ten_numbers_stay_together_and_every_code_is_on_both_sides(published: Path) -> None:
    rows = _read(published)
    assert rows["NGS_0010.tiff"].group == rows["NGS_0019.tiff"].group
    assert rows["NGS_0019.tiff"].group != rows["NGS_0020.tiff"].group
    for code in LABEL_OF_CODE:
        sides = {row.group: row.split for row in rows.values() if row.label_raw == code}
        assert set(sides.values()) == {Split.TRAIN, Split.VAL}
        assert all(row.split is sides[row.group] for row in rows.values() if row.label_raw == code)


ANNOTATIONS = """\
BAS/BAS_0001.tiff BAS nan nan
BAS/BAS_0002.tiff BAS EOS EOS
BAS/BAS_0003.tiff BAS EOS nan
"""


def test_re_annotations_are_kept_and_the_first_is_the_label(tmp_path: Path) -> None:
    rows = _read(aml_tree(tmp_path, range(1, 5), ANNOTATIONS))
    assert rows["BAS_0002.tiff"].annotations == ("BAS", "EOS", "EOS")
    assert rows["BAS_0003.tiff"].annotations == ("BAS", "EOS", "")
    assert rows["BAS_0004.tiff"].annotations == ("BAS",)
    assert {row.label for name, row in rows.items() if name.startswith("BAS")} == {"basophil"}


def test_annotations_beside_the_folder_and_with_commas_are_read(tmp_path: Path) -> None:
    folder = aml_tree(tmp_path, range(1, 3))
    (tmp_path / "annotations.dat").write_text("AML-Cytomorphology_LMU/MON/MON_0001.tiff, MON, LYA\n")
    assert _read(folder)["MON_0001.tiff"].annotations == ("MON", "LYA")


def test_a_picture_that_only_the_annotations_know_has_a_row(tmp_path: Path) -> None:
    rows = _read(aml_tree(tmp_path, range(1, 3), "BAS/BAS_0099.tiff BAS\n"))
    assert not rows["BAS_0099.tiff"].image.exists()


@pytest.mark.parametrize("line", ["BAS/BAS_0001.tiff", "BAS/BAS_0001.tiff XYZ", "BAS/0001.tiff BAS", "x"])
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    folder = aml_tree(tmp_path, [1], f"EOS/EOS_0001.tiff EOS\n{line}\n")
    with pytest.raises(UsageError, match=r"annotations\.dat, line 2"):
        _read(folder)


def test_a_picture_annotated_twice_is_refused(tmp_path: Path) -> None:
    folder = aml_tree(tmp_path, [1], "EOS/EOS_0001.tiff EOS\n" * 2)
    with pytest.raises(UsageError, match="line 2"):
        _read(folder)


def test_a_code_without_pictures_is_named(tmp_path: Path) -> None:
    folder = aml_tree(tmp_path, [1])
    (folder / "KSC" / "KSC_0001.tiff").unlink()
    with pytest.raises(UsageError, match="no pictures of KSC"):
        _read(folder)


def test_a_picture_in_the_wrong_folder_is_named(tmp_path: Path) -> None:
    folder = aml_tree(tmp_path, [1])
    (folder / "KSC" / "KSC_0001.tiff").rename(folder / "BAS" / "KSC_0001.tiff")
    (folder / "KSC" / "KSC_0002.tiff").write_bytes((folder / "BAS" / "BAS_0001.tiff").read_bytes())
    with pytest.raises(UsageError, match=r"BAS/KSC_0001\.tiff is not named"):
        _read(folder)
