"""Lobes without the cytoplasm between them are one cell; neighbours stay two."""

from __future__ import annotations

from math import pi

import cv2
import numpy as np
import pytest

from pipeline.detect.instances import SlideFrame, find_instances
from pipeline.model.domain import CellInstance, TileSpec
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec

MPP_UM = 0.25
SIDE_PX = 200


def _found(*nuclei: tuple[int, int, int]) -> list[CellInstance]:
    """Return the cells of discs (x, y, radius) in px of 0.25 µm that are nucleus, without cytoplasm."""
    nucleus = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for x, y, radius in nuclei:
        cv2.circle(nucleus, (x, y), radius, 1, -1)
    probabilities = np.zeros((3, SIDE_PX, SIDE_PX), np.float32)
    probabilities[2] = nucleus * 0.98
    probabilities[0] = 1 - probabilities[2]
    size, whole = Size(SIDE_PX, SIDE_PX), Rect(0, 0, SIDE_PX, SIDE_PX)
    frame = SlideFrame(size, Mpp(MPP_UM), WorkingFrame.for_scan(size, Mpp(MPP_UM), MPP_UM))
    return list(find_instances(probabilities, TileSpec(0, whole, whole), frame, PipelineSpec()))


def _area_um2(*radii_px: int) -> float:
    return sum(pi * (radius * MPP_UM) ** 2 for radius in radii_px)


def test_the_lobes_of_a_neutrophil_are_one_cell_around_all_of_them() -> None:
    (cell,) = _found((80, 80, 9), (104, 84, 9), (94, 104, 9))
    assert cell.bbox_px0.width >= 42
    assert cell.bbox_px0.height >= 42
    assert cell.nucleus_area_um2 == pytest.approx(_area_um2(9, 9, 9), rel=0.1)
    assert cell.area_um2 > 1.2 * cell.nucleus_area_um2


def test_lobes_are_joined_whatever_their_order() -> None:
    lobes = [(60, 80, 8), (80, 80, 9), (100, 80, 8)]
    boxes = {_found(*order)[0].bbox_px0 for order in (lobes, lobes[::-1], [lobes[1], lobes[2], lobes[0]])}
    assert len(boxes) == 1


def test_two_small_lymphocytes_side_by_side_stay_two() -> None:
    assert len(_found((80, 80, 13), (110, 80, 13))) == 2


def test_small_nuclei_that_lie_apart_stay_two() -> None:
    assert len(_found((60, 80, 10), (100, 80, 10))) == 2


def test_a_lobe_beside_a_whole_nucleus_stays_by_itself() -> None:
    assert len(_found((80, 80, 19), (112, 80, 10))) == 2


def test_a_chain_of_lobes_is_no_longer_than_a_cell() -> None:
    cells = _found(*((40 + 22 * place, 80, 10) for place in range(6)))
    assert len(cells) > 1
    assert all(max(cell.bbox_px0.width, cell.bbox_px0.height) * MPP_UM <= 16.5 for cell in cells)


def test_what_another_cell_has_is_not_taken() -> None:
    between = [(70, 80, 8), (100, 80, 8), (85, 68, 8)]
    other = (85, 110, 17)
    cells = sorted(_found(*between, other), key=lambda cell: cell.centroid_px0[1])
    assert len(cells) == 2
    assert cells[1].nucleus_area_um2 == pytest.approx(_area_um2(17), rel=0.1)
