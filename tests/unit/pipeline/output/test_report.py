"""What programs read: the JSON of a result and the GeoJSON for QuPath."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from pipeline.model.domain import Provenance, RunKey, SlideResult
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass
from pipeline.output.pictures import gallery_sheets, jpeg, overview_picture, png
from pipeline.output.report import geojson_gz, slide_document
from pipeline.run import analyse_slide
from tests.support.drawn import DrawnSlide, drawn_cells, execution, models

CELLS = [(100, 100), (300, 140), (200, 300)]


@pytest.fixture(scope="module")
def slide():
    return DrawnSlide(drawn_cells(Size(400, 400), CELLS), 0.25)


@pytest.fixture(scope="module")
def result(slide):
    analysis = analyse_slide(slide, models(CellClass.EOSINOPHIL), PipelineSpec(), execution())
    key = RunKey("a" * 64, "b" * 64, "c" * 64)
    return SlideResult(analysis, Provenance(key, "bundle 1", "engine 1", "0", (("tiles", 0.5),)))


def test_the_document_is_json_with_its_digests(result):
    document = json.loads(json.dumps(slide_document("x.png", result)))
    assert document["path"] == "x.png"
    assert document["mpp"] == 0.25
    assert document["mpp_assumed"] is None
    assert document["provenance"]["bundle_digest"] == "b" * 64
    assert len(document["cells"]) == 3
    assert [c["class"] for c in document["cells"]] == ["eosinophil"] * 3


def test_the_differential_states_its_denominator(result):
    lines = slide_document("x.png", result)["differential"]["classes"]
    assert lines["eosinophil"]["count"] == 3
    assert lines["eosinophil"]["percent"] == 100.0
    assert lines["eosinophil"]["ci95"] == [pytest.approx(43.85, abs=0.01), 100.0]
    assert lines["eosinophil"]["loinc"] == "26450-7"
    assert lines["erythroblast"]["denominator"] == "per_100_leukocytes"


def test_a_box_holds_its_contour(result):
    for cell in slide_document("x.png", result)["cells"]:
        x, y, width, height = cell["bbox_px0"]
        assert all(x <= px < x + width and y <= py < y + height for px, py in cell["contour_px0"])
        assert cell["nucleus_area_um2"] < cell["area_um2"]


def test_geojson_closes_its_rings_and_is_the_same_each_time(result):
    packed = geojson_gz(result.analysis.cells)
    assert packed == geojson_gz(result.analysis.cells)
    features = json.loads(gzip.decompress(packed))["features"]
    assert len(features) == 3
    for feature in features:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]


def test_pictures_show_every_cell(slide, result):
    cells = result.analysis.cells
    picture = overview_picture(slide, cells)
    assert picture.shape == (800, 800, 3)
    assert jpeg(picture)[:2] == b"\xff\xd8"
    assert png(picture)[:4] == b"\x89PNG"
    (sheet,) = gallery_sheets(slide, cells)
    assert sheet.shape[1] == 3 * 96


def test_no_cells_give_no_sheet(slide):
    assert list(gallery_sheets(slide, ())) == []


def test_outlines_lie_on_their_cells_in_a_narrow_scan():
    narrow = DrawnSlide(drawn_cells(Size(64, 6000), [(32, 5500)]), 0.25)
    analysis = analyse_slide(narrow, models(CellClass.EOSINOPHIL), PipelineSpec(), execution())
    plain, drawn = overview_picture(narrow, ()), overview_picture(narrow, analysis.cells)
    rows = np.flatnonzero((plain != drawn).any(axis=(1, 2)))
    assert rows.min() / plain.shape[0] > 5300 / 6000
