"""Cells out of probability maps: counts, areas and splits on drawn shapes whose truth is known."""

from __future__ import annotations

from math import pi

import cv2
import numpy as np
import pytest

from pipeline.detect.instances import SlideFrame, find_instances
from pipeline.detect.touching_cells import split_touching
from pipeline.model.domain import TileSpec
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec

SPEC = PipelineSpec()


def maps(shape, cells, nuclei):
    cell, nucleus = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for x, y, radius in cells:
        cv2.circle(cell, (x, y), radius, 1, -1)
    for x, y, radius in nuclei:
        cv2.circle(nucleus, (x, y), radius, 1, -1)
    probabilities = np.zeros((3, *shape), np.float32)
    probabilities[2] = nucleus * 0.98
    probabilities[1] = (cell & (1 - nucleus)) * 0.98
    probabilities[0] = 1 - probabilities[1] - probabilities[2]
    return probabilities


def instances(probabilities, mpp=0.25, halo=0):
    height, width = probabilities.shape[1:]
    core = Rect(0, 0, width - 2 * halo, height - 2 * halo)
    size = Size(int(core.width * 0.25 / mpp), int(core.height * 0.25 / mpp))
    frame = SlideFrame(size, Mpp(mpp), WorkingFrame.for_scan(size, Mpp(mpp), 0.25))
    return list(find_instances(probabilities, TileSpec(0, core, core.grown(halo)), frame, SPEC))


@pytest.mark.parametrize("mpp", [0.0625, 0.125, 0.25])
def test_a_disc_is_found_with_its_area_and_place(mpp):
    (cell,) = instances(maps((160, 160), [(80, 64, 24)], [(80, 64, 14)]), mpp)

    scale = 0.25 / mpp
    assert cell.area_um2 == pytest.approx(pi * 24**2 * 0.25**2, rel=0.04)
    assert cell.nucleus_area_um2 == pytest.approx(pi * 14**2 * 0.25**2, rel=0.06)
    assert cell.centroid_px0[0] == pytest.approx((80 + 0.5) * scale - 0.5, abs=0.5)
    assert cell.centroid_px0[1] == pytest.approx((64 + 0.5) * scale - 0.5, abs=0.5)
    assert not cell.touches_edge


def test_the_outline_filled_gives_the_area_back():
    (cell,) = instances(maps((160, 160), [(80, 64, 24)], [(80, 64, 14)]), 0.125)

    mask = np.zeros((320, 320), np.uint8)
    cv2.fillPoly(mask, [cell.contour_px0.astype(np.int32)], 1)
    assert np.count_nonzero(mask) == cell.area_px0
    assert cell.bbox_px0.area >= cell.area_px0


def test_touching_cells_are_split():
    found = instances(maps((160, 200), [(70, 80, 24), (112, 80, 24)], [(68, 80, 12), (114, 80, 12)]))
    assert sorted(round(c.centroid_px0[0] / 10) for c in found) == [7, 11]


def test_a_lobed_nucleus_stays_one_cell():
    lobes = [(70, 76, 8), (82, 90, 8), (92, 72, 8)]
    (cell,) = instances(maps((160, 160), [(80, 80, 26)], lobes))
    assert len(cell.nucleus_contours_px0) == 3


def test_a_cell_without_nucleus_is_none():
    assert instances(maps((160, 160), [(80, 80, 26)], [])) == []


def test_a_pixel_outside_the_scan_is_no_cell():
    halo = 32
    probabilities = maps((160, 160), [(12, 80, 10)], [(12, 80, 9)])
    assert instances(probabilities, halo=halo) == []


def test_a_cell_at_the_edge_says_so():
    (cell,) = instances(maps((160, 160), [(10, 80, 24)], [(10, 80, 14)]))
    assert cell.touches_edge


def test_splitting_leaves_no_pixel_over():
    cell = np.zeros((120, 160), np.uint8)
    nucleus = np.zeros_like(cell)
    for x in (40, 80, 120):
        cv2.circle(cell, (x, 60), 24, 1, -1)
        cv2.circle(nucleus, (x, 60), 10, 1, -1)

    labels = split_touching(cell, nucleus, 50)

    assert int(labels.max()) == 3
    assert np.array_equal(labels > 0, cell > 0)


def test_a_part_without_nucleus_belongs_to_its_neighbour():
    cell, nucleus = np.zeros((120, 160), np.uint8), np.zeros((120, 160), np.uint8)
    cv2.circle(cell, (60, 60), 24, 1, -1)
    cv2.circle(cell, (102, 60), 20, 1, -1)
    cv2.circle(nucleus, (60, 60), 12, 1, -1)
    assert int(split_touching(cell, nucleus, 50).max()) == 1


def test_a_speck_of_nucleus_is_no_polygon():
    probabilities = maps((160, 160), [(80, 80, 24)], [(80, 80, 12)])
    probabilities[:, 62, 80] = (0.01, 0.0, 0.99)
    (cell,) = instances(probabilities)
    assert all(len(contour) >= 3 for contour in (cell.contour_px0, *cell.nucleus_contours_px0))
