"""Platelets of a field without leukocytes: found by colour and size, named by the ensemble, not counted."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.count.conclusion import MONOLAYER_NEEDED_FROM_CELLS
from pipeline.detect.instances import SlideFrame
from pipeline.detect.platelets import MAX_BODIES, apart_from, violet_bodies
from pipeline.model.domain import CallStatus, Flag, SlideStatus
from pipeline.model.geometry import Mpp, Size, WorkingFrame
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import CellClass
from pipeline.run import analyse_slide
from tests.support.drawn import DrawnSlide, drawn_cells, execution, models, with_red_cells

SPEC = PipelineSpec()
SIZE = Size(600, 500)
VIOLET = (150, 115, 190)
"""lighter than what `ColourSegmenter` takes for a nucleus"""
PLACES = [(150, 120), (420, 300)]
MPP = 0.1


def with_platelets(picture, places, radius=16):
    for x, y in places:
        cv2.circle(picture, (x, y), radius, VIOLET, -1)
    return picture


def red_cells_and_platelets(places=PLACES, radius=16):
    return with_platelets(with_red_cells(drawn_cells(SIZE, []), [(300, 120), (200, 400)], 37), places, radius)


def bodies(picture):
    size = Size(picture.shape[1], picture.shape[0])
    return violet_bodies(picture, SlideFrame(size, Mpp(MPP), WorkingFrame.for_scan(size, Mpp(MPP), 0.25)))


def analysed(picture, cell_class, spec=SPEC):
    return analyse_slide(DrawnSlide(picture, MPP), models(cell_class), spec, execution())


def test_violet_bodies_have_the_place_and_area_of_what_was_drawn():
    found = bodies(red_cells_and_platelets())
    assert sorted(tuple(round(v) for v in body.centroid_px0) for body in found) == PLACES
    for body in found:
        assert body.area_um2 == pytest.approx(np.pi * 1.6**2, rel=0.1)
        assert body.nucleus_area_um2 == 0
        assert not body.touches_edge


@pytest.mark.parametrize("radius", [4, 60])
def test_specks_and_leukocytes_are_no_platelets(radius):
    assert bodies(red_cells_and_platelets(radius=radius)) == ()


def test_a_body_at_the_edge_is_marked():
    (body,) = bodies(red_cells_and_platelets([(5, 250)]))
    assert body.touches_edge


def test_a_dirty_picture_gives_its_largest_bodies():
    places = [(x, y) for x in range(20, 590, 30) for y in range(20, 490, 30)]
    found = bodies(with_platelets(drawn_cells(SIZE, []), places, 9))
    assert len(places) > MAX_BODIES == len(found)


def test_platelets_of_a_field_without_leukocytes_are_reported_and_not_counted():
    analysis = analysed(red_cells_and_platelets(), CellClass.PLATELET)
    assert [cell.call.cell_class for cell in analysis.cells] == [CellClass.PLATELET] * 2
    assert {cell.call.status for cell in analysis.cells} == {CallStatus.ACCEPTED}
    assert analysis.differential.n_leukocytes == 0
    assert analysis.differential.n_found == 2


def test_what_the_ensemble_takes_for_no_platelet_stays_background():
    for other in (CellClass.LYMPHOCYTE, CellClass.ARTEFACT):
        assert analysed(red_cells_and_platelets(), other).cells == ()


def test_a_cell_that_is_all_nucleus_is_found_at_second_sight():
    analysis = analysed(red_cells_and_platelets([(300, 250)], radius=28), CellClass.ERYTHROBLAST)
    (cell,) = analysis.cells
    assert cell.call.cell_class is CellClass.ERYTHROBLAST
    assert cell.instance.area_um2 == pytest.approx(np.pi * 2.8**2, rel=0.1)


def test_a_large_body_that_the_ensemble_calls_debris_stays_background():
    assert analysed(red_cells_and_platelets([(300, 250)], radius=28), CellClass.ARTEFACT).cells == ()


def test_unsure_platelets_are_no_leukocytes_in_doubt():
    strict = replace(SPEC, accept_probability=0.95)
    analysis = analysed(red_cells_and_platelets(), CellClass.PLATELET, strict)
    assert [cell.call.cell_class for cell in analysis.cells] == [CellClass.PLATELET] * 2
    differential = analysis.differential
    assert (differential.n_unidentified, differential.n_artefacts, differential.n_found) == (0, 2, 2)
    assert Flag.MANY_UNIDENTIFIED not in analysis.flags


def test_many_platelets_alone_are_no_missing_monolayer():
    places = [(x, y) for x in range(60, 560, 60) for y in range(60, 460, 100)]
    analysis = analysed(with_platelets(drawn_cells(SIZE, []), places), CellClass.PLATELET)
    assert len(analysis.cells) == len(places) > MONOLAYER_NEEDED_FROM_CELLS
    assert analysis.quality.free_red_cells_per_mm2 == 0
    assert analysis.status is SlideStatus.INSUFFICIENT


def test_a_field_with_a_leukocyte_gets_no_second_look():
    picture = with_platelets(drawn_cells(SIZE, [(300, 250)], 60), PLACES)
    assert len(analysed(picture, CellClass.LYMPHOCYTE).cells) == 1


def test_a_platelet_found_at_first_sight_is_reported_once():
    # Small enough that its middle, which the segmenter takes for a nucleus, is no whole one.
    picture = with_platelets(drawn_cells(SIZE, [(300, 250)], 35), PLACES)
    analysis = analysed(picture, CellClass.PLATELET)
    at_first_sight = [cell for cell in analysis.cells if cell.instance.nucleus_area_um2 > 0]
    assert len(at_first_sight) == 1
    assert at_first_sight[0].instance.nucleus_area_um2 < SPEC.whole_nucleus_um2
    assert len(analysis.cells) == 3
    assert apart_from([c.instance for c in analysis.cells], [c.instance for c in analysis.cells]) == ()


def test_a_slide_larger_than_the_sample_gets_no_second_look():
    picture = with_platelets(drawn_cells(Size(2100, 300), []), [(1000, 150)])
    assert analysed(picture, CellClass.PLATELET).cells == ()
