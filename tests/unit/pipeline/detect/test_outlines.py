"""Each found cell is drawn anew from finer pixels: as many come out as went in, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import pi

import cv2
import numpy as np
import pytest

from pipeline.detect.instances import SlideFrame, find_instances
from pipeline.detect.outlines import (
    AROUND_UM,
    MOST_SIDE_PX,
    OutlineRefiner,
    mirrored,
    outline_frame,
    unmirrored_mean,
    window_around,
)
from pipeline.model.domain import CellInstance, TileSpec
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.crops import read_tile
from tests.support.drawn import CYTOPLASM, ColourSegmenter, DrawnSlide, drawn_cells, execution

SPEC = PipelineSpec()
SIZE = Size(800, 640)
MPP_UM = 0.1
RADIUS_PX0 = 60


def _frame(mpp_um: float, size_px0: Size = SIZE) -> SlideFrame:
    mpp = Mpp(mpp_um)
    return SlideFrame(size_px0, mpp, WorkingFrame.for_scan(size_px0, mpp, SPEC.working_mpp_um))


def _picture(cells: Sequence[tuple[int, int]]) -> np.ndarray:
    return drawn_cells(SIZE, cells, radius=RADIUS_PX0)


def _as_tiles_see_them(picture: np.ndarray, segmenter: ColourSegmenter) -> tuple[CellInstance, ...]:
    """Return the cells of the picture at the working scale, left to right."""
    frame = _frame(MPP_UM)
    tile = Rect(0, 0, 320, 256)
    pixels = read_tile(DrawnSlide(picture, MPP_UM), frame.working, TileSpec(0, tile, tile)).pixels
    found = find_instances(segmenter.segment(pixels[None])[0], TileSpec(0, tile, tile), frame, SPEC)
    return tuple(sorted(found, key=lambda cell: cell.centroid_px0))


def _redrawn(
    picture: np.ndarray, cells: Sequence[CellInstance], segmenter: ColourSegmenter
) -> tuple[CellInstance, ...]:
    frame = outline_frame(_frame(MPP_UM), SPEC)
    return OutlineRefiner(DrawnSlide(picture, MPP_UM), segmenter, frame, SPEC, execution()).refined(cells)


class Blurred(ColourSegmenter):
    """Says nothing of pictures as fine as those of outlines, or something else."""

    def __init__(self, says: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self._says = says

    def segment(self, batch: np.ndarray) -> np.ndarray:
        return self._says(super().segment(batch))


def test_as_many_come_out_as_went_in_and_in_their_order() -> None:
    picture = _picture([(120, 120), (400, 300), (680, 500), (70, 560)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())
    drawn = _redrawn(picture, seen, ColourSegmenter())
    assert len(seen) == 4
    assert [one.centroid_px0 for one in drawn] == [pytest.approx(one.centroid_px0, abs=2.0) for one in seen]


def test_a_finer_outline_is_nearer_to_the_truth() -> None:
    picture = _picture([(400, 300)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())
    coarse = (replace(seen[0], area_px0=0.8 * seen[0].area_px0),)
    (drawn,) = _redrawn(picture, coarse, ColourSegmenter())
    assert drawn.area_px0 == pytest.approx(pi * RADIUS_PX0**2, rel=0.03)
    assert drawn.nucleus_area_px0 == pytest.approx(pi * (RADIUS_PX0 * 0.6) ** 2, rel=0.05)


def test_an_outline_that_has_lost_cytoplasm_is_not_taken() -> None:
    picture = _picture([(400, 300)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())

    def narrowed(maps: np.ndarray) -> np.ndarray:
        nuclei = maps[:, 2]
        near = np.stack([cv2.dilate(nucleus, np.ones((9, 9), np.uint8)) for nucleus in nuclei])
        return np.stack([1 - near, near - nuclei, nuclei], axis=1)

    assert _redrawn(picture, seen, Blurred(narrowed)) == seen


def test_what_the_finer_view_does_not_show_stays_as_it_was() -> None:
    picture = _picture([(400, 300)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())
    background = np.array([1, 0, 0], np.float32)[None, :, None, None]
    assert _redrawn(picture, seen, Blurred(lambda maps: np.broadcast_to(background, maps.shape))) == seen


@pytest.mark.parametrize(("apart_px0", "swallowed"), [(110, "a centre"), (140, "the edge of the view")])
def test_an_outline_that_swallows_a_neighbour_is_not_taken(apart_px0: int, swallowed: str) -> None:
    picture = _picture([(330, 300), (330 + apart_px0, 300)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())
    assert len(seen) == 2, swallowed
    bridged = picture.copy()
    cv2.rectangle(bridged, (330, 245), (330 + apart_px0, 355), CYTOPLASM, -1)
    assert _redrawn(bridged, seen, _OneNucleus()) == seen


def test_a_cell_cut_by_the_edge_of_the_scan_is_drawn_anew() -> None:
    picture = _picture([(20, 300), (400, 620)])
    seen = _as_tiles_see_them(picture, ColourSegmenter())
    shrunk = tuple(replace(cell, area_px0=0.8 * cell.area_px0) for cell in seen)
    drawn = _redrawn(picture, shrunk, ColourSegmenter())
    assert len(drawn) == 2
    assert all(one.touches_edge for one in drawn)
    assert [one.area_px0 for one in drawn] == [pytest.approx(one.area_px0, rel=0.05) for one in seen]


class _OneNucleus(ColourSegmenter):
    """Takes everything stained for one nucleus, so that neighbours are one cell."""

    def segment(self, batch: np.ndarray) -> np.ndarray:
        maps = super().segment(batch)
        stained = maps[:, 1] + maps[:, 2]
        return np.stack([maps[:, 0], np.zeros_like(stained), stained], axis=1)


def test_a_clump_stays_as_it_was() -> None:
    frame = outline_frame(_frame(MPP_UM), SPEC)
    side_px0 = round(MOST_SIDE_PX * frame.working.scale)
    assert window_around(Rect(10, 10, side_px0, 40), frame, 16) is None


@pytest.mark.parametrize("mpp_um", [0.03, 0.07, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("box_um", [(3.0, 3.0), (9.0, 14.0), (31.0, 12.0)])
def test_the_window_shows_the_cell_and_what_is_around_it(mpp_um: float, box_um: tuple[float, float]) -> None:
    frame = outline_frame(_frame(mpp_um, Size(4000, 4000)), SPEC)
    box = Rect(1501, 1703, *(max(1, round(side / mpp_um)) for side in box_um))
    window = window_around(box, frame, 32)
    assert window is not None
    assert window.width == window.height
    assert window.width % 32 == 0
    shown = frame.working.rect_to_px0(window)
    around_px0 = int(AROUND_UM / mpp_um)
    assert shown.intersection(box.grown(around_px0)) == box.grown(around_px0)


def test_views_are_mirrored_and_put_back() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (16, 24, 3), np.uint8)
    views = mirrored(picture)
    assert views.shape == (4, 16, 24, 3)
    maps = np.moveaxis(views.astype(np.float32), 3, 1)
    assert np.array_equal(unmirrored_mean(maps), np.moveaxis(picture.astype(np.float32), 2, 0))


def test_the_mean_weighs_each_view_alike() -> None:
    views = np.stack([np.full((3, 4, 4), value, np.float32) for value in (0.0, 0.2, 0.4, 1.0)])
    assert unmirrored_mean(views) == pytest.approx(np.full((3, 4, 4), 0.4, np.float32))
