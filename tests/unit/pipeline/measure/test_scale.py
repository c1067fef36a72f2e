"""Scale where the file has none: by red cells that are there, by votes that agree, or not at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.measure.red_cells import RED_CELL_UM, free_red_cells_px0, mode_px0, per_mm2
from pipeline.measure.scale import LEUKOCYTE_UM, Vote, combined_scale, leukocyte_votes, scale_of
from pipeline.model.domain import ScaleSource
from pipeline.model.geometry import Mpp, Size
from pipeline.model.spec import PipelineSpec
from tests.support.drawn import CYTOPLASM, GLASS, NUCLEUS, ColourSegmenter
from tests.support.serial_pool import SerialPool

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
    return scale_of(stated, picture, ColourSegmenter(), SPEC, SerialPool())


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
    votes = [Vote(0.081, 0.5), Vote(0.082, 0.7), Vote(0.082, 0.1), Vote(0.64, 0.9)]
    scale = combined_scale([], votes, SPEC.assumed_mpp_um)
    assert scale.source is ScaleSource.LEUKOCYTES
    assert scale.mpp.um_per_px0 == pytest.approx(0.085, rel=0.05)


def test_candidates_that_agree_outweigh_what_is_usual():
    scale = combined_scale([], [Vote(0.25, 0.9)] * 3, SPEC.assumed_mpp_um)
    assert scale.mpp.um_per_px0 == pytest.approx(0.25, rel=0.1)


def test_nothing_seen_is_no_scale():
    for votes in ([], [Vote(0.6, 0.05)]):
        scale = combined_scale([], votes, SPEC.assumed_mpp_um)
        assert (scale.source, scale.mpp.um_per_px0) == (ScaleSource.ASSUMED, SPEC.assumed_mpp_um)


@pytest.mark.parametrize("true_um", [0.07, 0.1, 0.16])
def test_two_red_cells_correct_an_odd_leukocyte(true_um):
    scale = combined_scale([true_um, true_um * 1.05], [Vote(true_um * 1.6, 0.9)], SPEC.assumed_mpp_um)
    assert scale.source is ScaleSource.RED_CELLS
    assert scale.mpp.um_per_px0 == pytest.approx(true_um, rel=0.2)


def test_specks_do_not_pass_for_red_cells_beside_a_leukocyte():
    scale = combined_scale([0.6, 0.45], [Vote(0.11, 0.9), Vote(0.1, 0.8)], SPEC.assumed_mpp_um)
    assert scale.mpp.um_per_px0 == pytest.approx(0.105, rel=0.1)


def test_a_platelet_taken_for_a_leukocyte_does_not_outweigh_a_red_cell():
    scale = combined_scale([0.106], [Vote(0.37, 0.9)], SPEC.assumed_mpp_um)
    assert scale.mpp.um_per_px0 == pytest.approx(0.106, rel=0.1)


def test_a_cell_cut_by_the_edge_says_less_than_a_whole_one():
    picture = np.full((400, 400, 3), GLASS, np.uint8)
    for x, radius in ((200, 60), (0, 60), (400, 60)):
        cv2.circle(picture, (x, 200), radius, CYTOPLASM, -1)
        cv2.circle(picture, (x, 200), radius * 3 // 5, NUCLEUS, -1)
    votes = list(leukocyte_votes(picture, ColourSegmenter(), SPEC, SerialPool()))
    whole = max(votes, key=lambda vote: vote.weight)
    assert whole.um == pytest.approx(LEUKOCYTE_UM / 120, rel=0.1)
    cut = [vote.weight for vote in votes if vote.um > 1.25 * whole.um]
    assert cut
    assert max(cut) < whole.weight / 4
