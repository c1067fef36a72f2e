"""Scale where the file has none: by red cells that are there, by votes that agree, or not at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.domain import ScaleSource
from pipeline.geometry import Mpp
from pipeline.scale import RED_CELL_UM, agreed_um, red_cell_diameter_px0, scale_of
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


@pytest.mark.parametrize("diameter", [30, 50, 80])
def test_red_cells_give_the_scale(diameter):
    scale = scale_of(None, red_cells(20, diameter), ColourSegmenter(), SPEC)
    assert scale.source is ScaleSource.RED_CELLS
    assert scale.mpp.um_per_px0 == pytest.approx(RED_CELL_UM / diameter, rel=0.06)


def test_platelets_do_not_pass_for_red_cells():
    assert red_cell_diameter_px0(red_cells(8, 60, platelets=12)) == pytest.approx(60, rel=0.06)


def test_too_few_red_cells_give_nothing():
    assert red_cell_diameter_px0(red_cells(3, 60)) is None


def test_what_the_file_says_goes_first():
    assert scale_of(Mpp(0.2), red_cells(20, 60), ColourSegmenter(), SPEC).source is ScaleSource.FILE


def test_glass_gives_the_default():
    scale = scale_of(None, red_cells(0, 60), ColourSegmenter(), SPEC)
    assert scale.source is ScaleSource.ASSUMED
    assert scale.mpp.um_per_px0 == SPEC.assumed_mpp_um


def test_votes_that_agree_outweigh_a_louder_one():
    votes = [(0.54, 0.081), (0.75, 0.082), (0.04, 0.082), (0.6, 0.43), (0.9, 0.64)]
    assert agreed_um(votes) == pytest.approx(0.0815, rel=0.02)


def test_a_faint_lone_vote_is_no_scale():
    assert agreed_um([(0.3, 0.6)]) is None
    assert agreed_um([]) is None
