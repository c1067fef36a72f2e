"""Reading labels.csv: typed rows, or one clear sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.model.errors import UsageError
from pipeline.model.taxonomy import CellClass
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.sources import SOURCES, source_of
from pipeline.training.data.targets import Tissue
from pipeline.training.data.training_samples import MapKind, crop_samples, field_samples, points_of
from tests.support.drawn_pack import DrawnPack, boxes


def _rows(pack: DrawnPack, folder: str) -> tuple[LabelRow, ...]:
    return read_table(pack.write(), source_of(folder))


@pytest.fixture
def pack(tmp_path: Path) -> DrawnPack:
    return DrawnPack(tmp_path)


def test_a_row_is_read_with_its_boxes(pack: DrawnPack) -> None:
    pack.add("bccd", "neutrophil", "val", boxes_json=boxes(("WBC", 10, 20, 30, 40.5)))
    (row,) = _rows(pack, "bccd")
    assert (row.split, row.width_px, row.label) == (Split.VAL, 120, "neutrophil")
    assert row.boxes[0].centre == (25.0, 40.25)
    assert row.image.is_file()


@pytest.mark.parametrize("column", ["group", "subject"])
def test_a_group_on_both_sides_is_a_leak(pack: DrawnPack, column: str) -> None:
    pack.add("bccd", "neutrophil", "train", **{column: "same"})
    pack.add("bccd", "neutrophil", "val", **{column: "same"})
    with pytest.raises(UsageError, match="leaks"):
        _rows(pack, "bccd")


def test_the_same_group_name_in_another_folder_is_no_leak(pack: DrawnPack) -> None:
    pack.add("bccd", "neutrophil", "train", group="g1")
    pack.add("aml_lmu", "basophil", "val", group="g1")
    assert len(_rows(pack, "bccd")) == len(_rows(pack, "aml_lmu")) == 1


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No labels\.csv for bccd"):
        read_table(tmp_path, source_of("bccd"))


def test_a_missing_column_is_named(pack: DrawnPack) -> None:
    pack.add("bccd", "neutrophil", "train")
    table = pack.write() / "bccd" / "labels.csv"
    table.write_text(table.read_text().replace(",split,", ",side,"))
    with pytest.raises(UsageError, match="no column split"):
        read_table(pack.root, source_of("bccd"))


@pytest.mark.parametrize("added", [b"\xff\xfe", b"," * 9 + b"x" * 200_000])
def test_what_is_no_table_is_one_sentence(pack: DrawnPack, added: bytes) -> None:
    pack.add("bccd", "neutrophil", "train")
    table = pack.write() / "bccd" / "labels.csv"
    table.write_bytes(table.read_bytes() + added)
    with pytest.raises(UsageError, match=r"bccd/labels\.csv is no"):
        read_table(pack.root, source_of("bccd"))


@pytest.mark.parametrize("values", [{"split": "test"}, {"width": "wide"}, {"boxes_json": "{"}])
def test_a_bad_value_is_told_with_its_line(pack: DrawnPack, values: dict[str, str]) -> None:
    row = pack.add("bccd", "neutrophil", "train")
    row.update(values)
    with pytest.raises(UsageError, match="line 2"):
        _rows(pack, "bccd")


@pytest.mark.parametrize("folder", ["research_only/all_idb2", "cnmc_subset", "nothing"])
def test_what_may_not_be_shipped_is_no_source(folder: str) -> None:
    with pytest.raises(UsageError):
        source_of(folder)
    assert folder not in SOURCES


def test_places_are_the_labelled_cell_platelets_and_red_cells_far_from_it(pack: DrawnPack) -> None:
    far = ("RBC", 0, 0, 20, 20)
    near = ("RBC", 60, 60, 40, 40)
    found = boxes(("WBC", 60, 60, 60, 60), far, near, ("Platelets", 100, 0, 10, 10))
    pack.add("pbc_barcelona", "basophil", "train", boxes_json=found)
    (row,) = _rows(pack, "pbc_barcelona")
    places = [(place.cell_class, place.x, place.y) for place in points_of(row)]
    assert (CellClass.BASOPHIL, 60.0, 60.0) in places
    assert (CellClass.PLATELET, 105.0, 5.0) in places
    assert (CellClass.ARTEFACT, 10.0, 10.0) in places
    assert (CellClass.ARTEFACT, 80.0, 80.0) not in places


def test_a_field_with_more_boxes_than_names_gives_no_cells(pack: DrawnPack) -> None:
    two = boxes(("WBC", 0, 0, 20, 20), ("WBC", 60, 60, 20, 20))
    pack.add("bccd", "neutrophil", "train", boxes_json=two, label_raw="NEUTROPHIL")
    for names in ("NEUTROPHIL, NEUTROPHIL", "NEUTROPHIL, NEUTROPHIL, NEUTROPHIL"):
        pack.add("bccd", "neutrophil", "train", boxes_json=two, label_raw=names)
    counts = [len(list(points_of(row))) for row in _rows(pack, "bccd")]
    assert counts == [0, 2, 2]


def test_boxes_with_their_own_names_are_cells_even_where_the_image_is_mixed(pack: DrawnPack) -> None:
    found = boxes(("basophil", 0, 0, 20, 20), ("lymphocyte", 60, 60, 20, 20))
    pack.add("chula_wbc_crops", "mixed", "train", boxes_json=found)
    (row,) = _rows(pack, "chula_wbc_crops")
    assert [place.cell_class for place in points_of(row)] == [CellClass.BASOPHIL, CellClass.LYMPHOCYTE]


def test_a_crop_shows_its_place_in_the_middle_at_its_scale(small_pack: Path) -> None:
    rows = read_table(small_pack, source_of("zheng_d1_jtsc"))
    sample = next(iter(crop_samples(rows, 64, 0.34)))
    side = sample.pixels.shape[0]
    assert sample.pixels.shape == (side, side, 3)
    middle = sample.pixels[side // 2, side // 2]
    assert middle[1] < 80  # the nucleus
    assert (
        np.abs(sample.pixels[0, 0].astype(int) - (235, 220, 225)).max() < 20
    )  # beyond the picture, its edge


def test_maps_follow_what_is_known(small_pack: Path) -> None:
    rows = [
        *read_table(small_pack, source_of("zheng_d1_jtsc")),
        *read_table(small_pack, source_of("pbc_barcelona")),
    ]
    samples = list(field_samples(rows, 0.2))
    assert len(samples) == len(rows)
    exact = [sample for sample in samples if sample.kind is MapKind.EXACT]
    assert all((sample.tissue == Tissue.NUCLEUS).any() for sample in exact)
    assert all(sample.pixels.shape[:2] == sample.tissue.shape for sample in samples)
    platelets = [s for s in samples if s.kind is MapKind.CENTRE and (s.tissue == Tissue.BACKGROUND).all()]
    assert len(platelets) == 3
