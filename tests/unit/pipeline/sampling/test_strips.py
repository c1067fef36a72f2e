from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.geometry import Rect
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from pipeline.sampling.strips import STRIP_LV, StripReader
from tests.support.drawn import DrawnSlide

SIDE = 3 * STRIP_LV // 2
PICTURE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
SLIDE = DrawnSlide(PICTURE, 0.25)


@pytest.fixture(scope="module")
def pool():
    with OrderedThreadPool(4) as pool:
        yield pool


places, lengths = st.integers(-200, SIDE + 200), st.integers(0, SIDE)


@settings(max_examples=50, deadline=None)
@given(rect=st.builds(Rect, places, places, lengths, lengths))
def test_the_same_pixels(pool, rect):
    assert np.array_equal(StripReader(SLIDE, pool).read(0, rect), SLIDE.read(0, rect))


def test_strips_end_where_tiles_do(pool):
    asked = []

    class Noting(DrawnSlide):
        def read(self, level, rect_lv):
            asked.append(rect_lv)
            return super().read(level, rect_lv)

    StripReader(Noting(PICTURE, 0.25), pool).read(0, Rect(5, 100, 700, 600))
    assert sorted(asked, key=lambda rect: rect.y) == [Rect(5, 100, 700, 412), Rect(5, 512, 700, 188)]
