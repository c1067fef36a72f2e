"""Where tissue is: a lone leukocyte shows on the thumbnail of a pyramid that is not read at level 0."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.detect.tissue import tissue_mask
from pipeline.model.domain import Level
from pipeline.model.geometry import Size
from pipeline.sampling.thumbnail import THUMBNAIL_PX, darkest_thumbnail_of
from tests.support.drawn import DrawnSlide, drawn_cells


class DrawnPyramid:
    """A `SlideReader` over an array and its reductions by area; counts what is read."""

    def __init__(self, pixels, downsamples):
        self._levels = [DrawnSlide(pixels)]
        size = self._levels[0].meta.size_px0
        sizes = [Size(size.width // by, size.height // by) for by in downsamples]
        for lesser in sizes:
            reduced = cv2.resize(pixels, (lesser.width, lesser.height), interpolation=cv2.INTER_AREA)
            self._levels.append(DrawnSlide(reduced))
        levels = (Level(size, 1.0), *(Level(s, float(by)) for s, by in zip(sizes, downsamples, strict=True)))
        self.meta = replace(self._levels[0].meta, levels=levels)
        self.pixels_read = 0

    def read(self, level, rect_lv):
        self.pixels_read += rect_lv.area
        return self._levels[level].read(0, rect_lv)


@pytest.mark.parametrize("downsamples", [(2, 4, 8), (4, 16), (2,), ()])
@pytest.mark.parametrize("side", [4096, 6000])
def test_a_lone_leukocyte_shows(side, downsamples):
    place = (side - 700, side // 3)
    reader = DrawnPyramid(drawn_cells(Size(side, side), [place], radius=13), downsamples)
    mask = tissue_mask(darkest_thumbnail_of(reader))
    assert mask.shape == (THUMBNAIL_PX, THUMBNAIL_PX)
    rows, columns = np.nonzero(mask)
    factor = side / THUMBNAIL_PX
    assert columns.mean() * factor == pytest.approx(place[0], abs=8)
    assert rows.mean() * factor == pytest.approx(place[1], abs=8)


def test_a_pyramid_is_not_read_at_level_0():
    reader = DrawnPyramid(drawn_cells(Size(8192, 8192), [(4000, 4000)]), (2, 4, 8))
    darkest_thumbnail_of(reader)
    assert reader.pixels_read <= 2048 * 2048
