"""analyse_slide on drawn scans: each cell once, whatever the tiles, the batches and the order."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.measure.scale import LEUKOCYTE_UM
from pipeline.model.domain import Flag, ScaleSource, SlideStatus
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.run import analyse_slide
from tests.support.drawn import (
    CYTOPLASM,
    GLASS,
    NUCLEUS,
    DrawnSlide,
    drawn_cells,
    execution,
    models,
    with_red_cells,
)

SPEC = PipelineSpec(tile_core_px=256, halo_px=64)
SIZE = Size(1100, 900)
ON_SEAMS = [(256, 256), (512, 100), (100, 512), (768, 768), (257, 700), (640, 511), (1024, 300), (400, 400)]


def analysed(picture, spec=SPEC, mpp=0.25, **batches):
    return analyse_slide(DrawnSlide(picture, mpp), models(), spec, execution(**batches))


def places(analysis):
    return [tuple(round(v) for v in cell.instance.centroid_px0) for cell in analysis.cells]


def test_cells_on_seams_are_counted_once():
    found = places(analysed(drawn_cells(SIZE, ON_SEAMS)))
    assert sorted(found) == sorted(ON_SEAMS)


@pytest.mark.parametrize("core", [128, 256, 512, 1024])
def test_the_tile_size_changes_nothing(core):
    picture = drawn_cells(SIZE, ON_SEAMS)
    spec = replace(SPEC, tile_core_px=core)
    ours, theirs = analysed(picture, spec), analysed(picture, replace(SPEC, tile_core_px=2048))
    assert places(ours) == places(theirs)
    assert [c.instance.area_px0 for c in ours.cells] == [c.instance.area_px0 for c in theirs.cells]


@pytest.mark.parametrize(
    ("tile_batch", "small_tile_batch", "crop_batch"), [(1, 1, 1), (3, 2, 5), (64, 64, 64)]
)
def test_the_batch_size_changes_nothing(tile_batch, small_tile_batch, crop_batch):
    picture = drawn_cells(SIZE, ON_SEAMS)
    ours = analysed(picture, tile_batch=tile_batch, small_tile_batch=small_tile_batch, crop_batch=crop_batch)
    assert places(ours) == places(analysed(picture))


def crowd():
    rng = np.random.default_rng(5)
    grid = [(x, y) for x in range(60, 1060, 80) for y in range(60, 860, 80)]
    return [(x + rng.integers(-6, 7), y + rng.integers(-6, 7)) for x, y in grid]


def test_a_crowd_is_counted_right():
    cells = crowd()
    between = [(x + 40, y + 40) for x in range(60, 980, 160) for y in range(60, 780, 80)]
    analysis = analysed(with_red_cells(drawn_cells(SIZE, cells), between))
    assert len(analysis.cells) == len(cells)
    assert analysis.differential.n_leukocytes == len(cells)
    assert analysis.status is SlideStatus.REPORTABLE


def test_many_cells_without_a_red_cell_are_no_blood_smear():
    analysis = analysed(drawn_cells(SIZE, crowd()))
    assert analysis.status is SlideStatus.REJECTED
    assert "No monolayer" in analysis.reasons[0]


@pytest.mark.parametrize("mpp", [0.0625, 0.1, 0.125, 0.25])
def test_areas_do_not_depend_on_the_scans_resolution(mpp):
    radius = round(6.0 / mpp)
    picture = drawn_cells(Size(round(100 / mpp), round(80 / mpp)), [(50 / mpp, 40 / mpp)], radius)
    (cell,) = analysed(picture, mpp=mpp).cells
    assert cell.instance.area_um2 == pytest.approx(113.1, rel=0.05)


WHOLE = replace(SPEC, whole_up_to_tiles=10_000)


PLASMA = (235, 216, 232)
"""darker than glass, and nothing to the segmenter"""


@pytest.mark.parametrize("radius", [16, 24, 40])
def test_around_candidates_there_are_the_cells_of_the_whole_scan(radius):
    """On the seams of the coarse tiles too, at the scan's edges, and in a row that no window holds."""
    row = [(x, 560) for x in range(60, 1940, 2 * radius + 4)]
    edges = [(0, 100), (1999, 300), (700, 0), (700, 1199), (1920, 960), (0, 0), (1999, 1199)]
    picture = drawn_cells(Size(2000, 1200), [*row, *edges, (1900, 200), (1920, 700)], radius)
    spec = replace(SPEC, candidate_core_px=320)
    ours, theirs = analysed(picture, spec), analysed(picture, replace(WHOLE))
    assert places(ours) == places(theirs)
    assert [c.instance.area_px0 for c in ours.cells] == [c.instance.area_px0 for c in theirs.cells]


def test_a_large_scan_with_few_cells_costs_a_third():
    picture = drawn_cells(Size(3000, 3000), [(700 * n, 700 * n) for n in range(1, 5)])
    picture[(picture == GLASS).all(axis=2) & (np.arange(3000) % 300 < 150)[:, None]] = PLASMA
    around, whole = models(), models()
    for used, spec in ((around, PipelineSpec()), (whole, PipelineSpec(whole_up_to_tiles=10_000))):
        assert len(analyse_slide(DrawnSlide(picture), used, spec, execution()).cells) == 4
    assert around.segmenter.pixels_seen < whole.segmenter.pixels_seen / 3


def test_a_scan_full_of_candidates_costs_a_coarse_look_more_at_most():
    picture = drawn_cells(
        Size(2000, 2000), [(x, y) for x in range(40, 2000, 80) for y in range(40, 2000, 80)]
    )
    around, whole = models(), models()
    for used, spec in ((around, PipelineSpec()), (whole, PipelineSpec(whole_up_to_tiles=10_000))):
        assert len(analyse_slide(DrawnSlide(picture), used, spec, execution()).cells) == 25 * 25
    assert around.segmenter.pixels_seen < 1.3 * whole.segmenter.pixels_seen


def test_empty_glass_is_rejected_and_costs_no_segmentation():
    used = models()
    analysis = analyse_slide(DrawnSlide(drawn_cells(SIZE, [])), used, SPEC, execution())
    assert analysis.status is SlideStatus.REJECTED
    assert analysis.tiles.empty == analysis.tiles.planned
    assert used.segmenter.pixels_seen == 0


def test_tiles_in_are_tiles_out():
    analysis = analysed(drawn_cells(SIZE, [(100, 100)]))
    assert analysis.tiles.planned == analysis.tiles.empty + analysis.tiles.analysed
    assert analysis.tiles.empty > 0


def test_few_cells_are_a_result_with_its_reason():
    analysis = analysed(drawn_cells(SIZE, ON_SEAMS))
    assert analysis.status is SlideStatus.INSUFFICIENT
    assert analysis.reasons == (
        "8 leukocytes identified, 100 are needed for a differential of this scan alone.",
    )
    assert Flag.TOO_FEW_CELLS in analysis.flags


def test_a_scan_without_scale_says_what_was_used():
    analysis = analysed(drawn_cells(Size(400, 400), [(200, 200)], 60), mpp=None)
    assert analysis.scale.source is ScaleSource.LEUKOCYTES
    assert analysis.scale.mpp.um_per_px0 == pytest.approx(LEUKOCYTE_UM / 120, rel=0.1)
    assert Flag.SCALE_ESTIMATED in analysis.flags


def test_twice_is_the_same():
    picture = drawn_cells(SIZE, ON_SEAMS)
    assert places(analysed(picture)) == places(analysed(picture))


@pytest.mark.parametrize("size", [Size(1, 1), Size(3, 400), Size(17, 23)])
def test_tiny_pictures_are_results(size):
    assert analysed(drawn_cells(size, [])).status is SlideStatus.REJECTED


@pytest.mark.parametrize("seed", range(6))
def test_clumps_on_seams_are_split_alike_in_every_tile(seed):
    rng = np.random.default_rng(seed)
    cells = [(512 + rng.integers(-6, 7), 40 + 36 * n) for n in range(22)]
    picture = drawn_cells(Size(1024, 900), cells, radius=20)
    for (x, y), radius in zip(cells, rng.integers(18, 26, len(cells)), strict=True):
        cv2.circle(picture, (int(x) + 14, int(y)), int(radius), CYTOPLASM, -1)
    for x, y in cells:
        cv2.circle(picture, (int(x), int(y)), 9, NUCLEUS, -1)
    spec = PipelineSpec(tile_core_px=512)
    assert places(analysed(picture, spec)) == places(analysed(picture, replace(spec, tile_core_px=2048)))


def test_a_lone_cell_on_a_very_long_scan_is_found():
    cells = [(x, 32) for x in range(1000, 200_000, 9000)]
    found = analysed(drawn_cells(Size(200_000, 64), cells, radius=13))
    assert len(found.cells) == len(cells)


@pytest.mark.parametrize("mpp", [0.0299, 0.0625, 0.25])
def test_no_cell_reaches_out_of_the_scan(mpp):
    radius = round(6 / mpp)
    side = 1001
    picture = drawn_cells(Size(side, side), [(side - radius // 2, side - radius // 2)], radius)
    (cell,) = analysed(picture, mpp=mpp).cells
    assert cell.instance.bbox_px0.right <= side
    assert cell.instance.bbox_px0.bottom <= side
    assert cell.instance.contour_px0.max() <= side - 1


@pytest.mark.parametrize("mpp", [0.25, 0.9, 1.2])
def test_a_monolayer_is_seen_at_every_scale(mpp):
    cells = [(x, y) for x in range(60, 1060, 80) for y in range(60, 860, 80)]
    between = [(x + 40, y + 40) for x in range(60, 980, 80) for y in range(60, 780, 80)]
    fine = with_red_cells(drawn_cells(SIZE, cells), between)
    size = (round(SIZE.width * 0.25 / mpp), round(SIZE.height * 0.25 / mpp))
    analysis = analysed(cv2.resize(fine, size, interpolation=cv2.INTER_AREA), mpp=mpp)
    assert analysis.quality.free_red_cells_per_mm2 > 500
