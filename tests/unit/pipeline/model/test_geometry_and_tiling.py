"""Frames convert without loss, and cores partition the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detect.tiling import tile_grid
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame

SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.sampled_from([64, 128, 512]), st.sampled_from([0, 32, 96]))
def test_cores_cover_each_pixel_once(width, height, core, halo):
    covered = np.zeros((height + core, width + core), np.uint8)
    for tile in tile_grid(Size(width, height), core, halo, 16):
        c = tile.core_px
        covered[c.y : c.bottom, c.x : c.right] += 1
        assert tile.halo_px == c.grown(halo).intersection(tile.halo_px)
        assert min(tile.halo_px.x, tile.halo_px.y) >= -16
        inner = Rect(0, 0, width, height).intersection(c.grown(halo))
        assert inner.intersection(tile.halo_px) == inner
        assert tile.halo_px.width % 16 == 0
        assert tile.halo_px.height % 16 == 0
    assert covered[:height, :width].min() == 1
    assert covered.max() == 1


@given(SIDES, SIDES, st.floats(0.03, 1.2))
def test_tiles_lie_on_whole_source_pixels(width, height, mpp):
    frame = WorkingFrame.for_scan(Size(width, height), Mpp(mpp), 0.25)
    for tile in tile_grid(frame.size_px, 128, 32, 16)[:9]:
        rect_px0 = frame.rect_to_px0(tile.core_px)
        assert rect_px0.x == tile.core_px.x * frame.px0_per_px


def test_a_rectangle_between_pixels_is_an_error():
    frame = WorkingFrame.for_scan(Size(100, 100), Mpp(0.1), 0.25)
    with pytest.raises(ValueError, match="whole level-0 pixels"):
        frame.rect_to_px0(Rect(1, 0, 8, 8))


def test_the_frame_is_the_nearest_eighth():
    assert WorkingFrame.for_scan(Size(1000, 500), Mpp(0.1), 0.25).scale == 2.5
    assert WorkingFrame.for_scan(Size(1000, 500), Mpp(0.25), 0.25).scale == 1.0
    assert WorkingFrame.for_scan(Size(1000, 500), Mpp(0.5), 0.25).scale == 0.5


@pytest.mark.parametrize("um", [0.0, -0.1, float("nan"), 2000.0])
def test_nonsense_scales_are_refused(um):
    with pytest.raises(ValueError, match="out of range"):
        Mpp(um)


def test_lengths_and_areas_convert_back():
    mpp = Mpp(0.2)
    assert mpp.to_px0(mpp.to_um(37.0)) == pytest.approx(37.0)
    assert mpp.to_um2(100.0) == pytest.approx(4.0)
