"""The readers on the real pictures beside the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2

from pipeline.training.data.datasets import DataPart, read_cnmc, read_parts, readable
from pipeline.training.data.datasets.aml_lmu import LABEL_OF_CODE
from pipeline.training.data.images import read_rgb
from pipeline.training.data.label_tables import Split, read_table, require_no_leaks
from pipeline.training.data.picture_sets import PictureClass, class_index
from pipeline.training.data.sources import SOURCES

TASK = (
    PictureClass("normal", ("normal_leukocyte", "normal_lymphoid_precursor")),
    PictureClass("all", ("lymphoblast",)),
)


def test_all_against_normal_is_read_from_the_subset(shared_data: Path) -> None:
    rows = read_parts((DataPart("cnmc_subset"),), shared_data)
    assert readable(rows).skipped == ()
    places = [class_index(row, TASK) for row in rows]
    assert (places.count(0), places.count(1)) == (19, 20)
    assert {read_rgb(row.image).shape for row in rows} == {(450, 450, 3)}


def test_the_subset_as_published_is_read_as_its_table_says(shared_data: Path, tmp_path: Path) -> None:
    listed = read_parts((DataPart("cnmc_subset"),), shared_data)
    for row in listed:
        fold = tmp_path / f"fold_{int(row.subject[-1], 36) % 2}" / row.label_raw
        fold.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(fold / f"{row.image.stem}.bmp"), read_rgb(row.image)[:, :, ::-1])
    published = read_cnmc(tmp_path)
    told = {(row.image.stem, row.label, row.subject, row.width_px) for row in listed}
    assert {(row.image.stem, row.label, row.subject, row.width_px) for row in published} == told
    assert {row.split for row in published} == {Split.TRAIN, Split.VAL}


def test_research_rows_are_marked(shared_data: Path) -> None:
    rows = read_parts((DataPart("research_only/all_idb2"),), shared_data)
    assert len(rows) == 140
    assert not any(row.source.shippable for row in rows)


def test_names_of_the_codes_are_those_of_the_pack(shared_data: Path) -> None:
    rows = read_parts((DataPart("aml_lmu"),), shared_data)
    assert {(row.label_raw, row.label) for row in rows} == set(LABEL_OF_CODE.items())


def test_real_tiffs_in_the_published_layout_are_read(shared_data: Path, tmp_path: Path) -> None:
    for row in read_parts((DataPart("aml_lmu"),), shared_data):
        code, number = row.group.split("_")
        (tmp_path / code).mkdir(exist_ok=True)
        shutil.copyfile(row.image, tmp_path / code / f"{code}_{number}.tiff")
    rows = read_parts((DataPart("."),), tmp_path)
    assert {row.label_raw for row in rows} == set(LABEL_OF_CODE)
    assert readable(rows).skipped == ()
    assert all(read_rgb(row.image).shape == (row.height_px, row.width_px, 3) for row in rows)


def test_the_sets_of_the_pack_hold_together_even_read_one_by_one(shared_data: Path) -> None:
    rows = [row for source in SOURCES.values() for row in read_table(shared_data, source)]
    require_no_leaks(rows)
    assert tuple(rows) == read_parts([DataPart(folder) for folder in SOURCES], shared_data)
    assert {row.split for row in rows if row.subject == "slide-57"} == {Split.VAL}
    assert {row.split for row in rows if row.subject == "slide-8"} == {Split.TRAIN}
