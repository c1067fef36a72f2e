"""What a coarse look suspects is looked at again, all of it, in windows that networks take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detect.candidates import (
    AROUND_PX,
    LEAST_SIDE_PX,
    candidate_frame,
    candidates_px0,
    windows_around,
)
from pipeline.detect.instances import SlideFrame
from pipeline.model.domain import TileSpec
from pipeline.model.geometry import EIGHTHS, Mpp, Rect, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec

SPEC = PipelineSpec()
STRIDE_PX = 32


def _frame(size_px0: Size, mpp_um: float = 0.25) -> SlideFrame:
    mpp = Mpp(mpp_um)
    return SlideFrame(size_px0, mpp, WorkingFrame.for_scan(size_px0, mpp, SPEC.working_mpp_um))


def _maps(side_px: int, spots: list[tuple[int, int]]) -> np.ndarray:
    """Background everywhere, but a pixel of cytoplasm at each (x, y)."""
    maps = np.zeros((3, side_px, side_px), np.float32)
    maps[0] = 1.0
    for x, y in spots:
        maps[:, y, x] = (0.7, 0.3, 0.0)
    return maps


@given(
    st.lists(st.tuples(st.integers(0, 159), st.integers(0, 159)), max_size=12),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_every_suspect_pixel_of_the_core_lies_in_a_box(spots: list[tuple[int, int]], mpp_um: float) -> None:
    coarse = candidate_frame(_frame(Size(9000, 9000), mpp_um), SPEC)
    tile = TileSpec(0, Rect(320, 640, 96, 96), Rect(288, 608, 160, 160))
    boxes = list(candidates_px0(_maps(160, spots), tile, coarse, SPEC))
    for x, y in spots:
        shown_px = (x + tile.halo_px.x, y + tile.halo_px.y)
        if tile.core_px.contains(*shown_px):
            left, top = (coarse.working.to_px0(edge) for edge in shown_px)
            right, bottom = left + coarse.working.scale, top + coarse.working.scale
            assert any(
                box.x <= left and right <= box.right and box.y <= top and bottom <= box.bottom
                for box in boxes
            )


def test_what_is_surely_ground_is_no_candidate() -> None:
    coarse = candidate_frame(_frame(Size(9000, 9000)), SPEC)
    tile = TileSpec(0, Rect(0, 0, 128, 128), Rect(-32, -32, 160, 160))
    assert list(candidates_px0(_maps(160, []), tile, coarse, SPEC)) == []
    faint = replace(SPEC, candidate_threshold=0.31)
    assert list(candidates_px0(_maps(160, [(80, 80)]), tile, coarse, faint)) == []


@given(
    st.lists(
        st.builds(
            Rect, st.integers(-40, 5000), st.integers(-40, 3000), st.integers(1, 1500), st.integers(1, 1500)
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([Size(5000, 3000), Size(4001, 70), Size(333, 2999)]),
    st.sampled_from([0.1, 0.25, 0.37]),
)
def test_windows_hold_their_boxes_and_are_what_networks_take(
    boxes: list[Rect], size_px0: Size, mpp_um: float
) -> None:
    frame = _frame(size_px0, mpp_um)
    windows = windows_around(boxes, frame, SPEC, STRIDE_PX)
    covered = np.zeros((size_px0.height, size_px0.width), bool)
    for window in windows:
        core_px0, core, shown = frame.working.rect_to_px0(window.core_px), window.core_px, window.halo_px
        covered[max(0, core_px0.y) : core_px0.bottom, max(0, core_px0.x) : core_px0.right] = True
        assert shown.width % STRIDE_PX == 0 == shown.height % STRIDE_PX
        assert shown.x % EIGHTHS == 0 == shown.y % EIGHTHS
        assert core.intersection(shown) == core
    for box in boxes:
        assert covered[max(0, box.y) : max(0, box.bottom), max(0, box.x) : max(0, box.right)].all()
    assert len({window.index for window in windows}) == len(windows)


def test_a_window_shows_ground_around_its_core_and_no_more_glass_than_a_tile_does() -> None:
    frame = _frame(Size(5000, 3000))
    inside, corner, clump = windows_around(
        [Rect(1000, 1000, 64, 64), Rect(4980, 2980, 20, 20), Rect(2000, 2000, 400, 100)],
        frame,
        SPEC,
        STRIDE_PX,
    )
    assert (inside.halo_px.width, inside.halo_px.height) == (LEAST_SIDE_PX, LEAST_SIDE_PX)
    assert inside.core_px.grown(AROUND_PX).intersection(inside.halo_px) == inside.core_px.grown(AROUND_PX)
    assert corner.halo_px.right <= 5000 + 2 * STRIDE_PX
    assert corner.halo_px.width == LEAST_SIDE_PX
    assert clump.halo_px.width >= 400 + 2 * AROUND_PX


@pytest.mark.parametrize("width_px0", [769, 2000])
def test_what_is_wider_than_a_tile_is_seen_in_parts(width_px0: int) -> None:
    windows = windows_around([Rect(1000, 1000, width_px0, 50)], _frame(Size(5000, 3000)), SPEC, STRIDE_PX)
    assert len(windows) == -(-width_px0 // SPEC.tile_core_px)
    for window in windows:
        shown = window.core_px.grown(SPEC.halo_px)
        assert shown.intersection(window.halo_px) == shown, "a cell on the seam of two parts is seen whole"
    assert max(window.halo_px.width for window in windows) <= SPEC.tile_core_px + 2 * SPEC.halo_px + STRIDE_PX


def test_the_same_box_twice_is_one_window() -> None:
    frame = _frame(Size(5000, 3000))
    box = Rect(1000, 1000, 64, 64)
    assert len(windows_around([box, box], frame, SPEC, STRIDE_PX)) == 1
