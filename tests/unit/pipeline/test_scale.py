"""Scale where the file has none: by red cells that are there, by votes that agree, or not at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.domain import ScaleSource
from pipeline.geometry import Mpp, Size
from pipeline.red_cells import RED_CELL_UM, free_red_cells_px0, mode_px0, per_mm2
from pipeline.scale import agreed_um, scale_of
from pipeline.spec import PipelineSpec
from tests.drawn import GLASS, ColourSegmenter

SPEC = PipelineSpec()


def red_cells(count, diameter, platelets=0):
    picture = np.full((600, 800, 3), GLASS, np.uint8)
    places = [(x, y) for y in range(80, 560, 110) for x in range(80, 760, 110)]
    for x, y in places[:count]:
        cv2.circle(picture, (x, y), diameter // 2, (205, 140, 140), -1)
        cv2.circle(picture, (x, y), diameter // 6, (225, 190, 190), -1)
    for x, y in places[count : count + platelets]:
        cv2.circle(picture, (x, y), 9, (150, 90, 160), -1)
    return picture


def scaled(picture, stated=None):
    return scale_of(stated, picture, free_red_cells_px0(picture), ColourSegmenter(), SPEC)


def test_platelets_are_not_counted_as_red_cells():
    picture = red_cells(8, 60, platelets=12)
    density = per_mm2(free_red_cells_px0(picture), Size(800, 600), Mpp(0.125))
    assert density == pytest.approx(8 / (800 * 600 * 0.125**2 * 1e-6))


@pytest.mark.parametrize("diameter", [30, 50, 80])
def test_red_cells_give_the_scale(diameter):
    scale = scaled(red_cells(20, diameter))
    assert scale.source is ScaleSource.RED_CELLS
    assert scale.mpp.um_per_px0 == pytest.approx(RED_CELL_UM / diameter, rel=0.06)


def test_platelets_do_not_pass_for_red_cells():
    assert mode_px0(free_red_cells_px0(red_cells(8, 60, platelets=12))) == pytest.approx(60, rel=0.06)


def test_too_few_red_cells_give_nothing():
    assert mode_px0(free_red_cells_px0(red_cells(3, 60))) is None


def test_what_the_file_says_goes_first():
    assert scaled(red_cells(20, 60), Mpp(0.2)).source is ScaleSource.FILE


def test_glass_gives_the_default():
    scale = scaled(red_cells(0, 60))
    assert scale.source is ScaleSource.ASSUMED
    assert scale.mpp.um_per_px0 == SPEC.assumed_mpp_um


def test_votes_that_agree_outweigh_a_louder_one():
    votes = [(0.54, 0.081), (0.75, 0.082), (0.04, 0.082), (0.6, 0.43), (0.9, 0.64)]
    assert agreed_um(votes) == pytest.approx(0.0815, rel=0.02)


def test_a_faint_lone_vote_is_no_scale():
    assert agreed_um([(0.3, 0.6)]) is None
    assert agreed_um([]) is None
