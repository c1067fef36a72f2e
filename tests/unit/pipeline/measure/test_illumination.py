"""The light of a scan, and the segmenter that sees by it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.measure.illumination import GLASS, Illumination, IlluminationCorrectedSegmenter, illumination_of
from pipeline.model.geometry import Size
from pipeline.model.spec import PipelineSpec
from pipeline.run import analyse_slide
from tests.support.drawn import ColourSegmenter, DrawnSlide, drawn_cells, execution, models

PLACES = [(120, 120), (300, 160), (200, 320)]


def test_glass_becomes_equally_bright_whatever_the_lamp() -> None:
    for level in (60, 120, 180):
        gains = illumination_of(np.full((64, 64, 3), level, np.uint8)).gains
        assert np.mean(gains) * level == pytest.approx(GLASS, rel=1e-6)


def test_a_usual_scan_is_left_as_it_is() -> None:
    for glass in ((200, 210, 220), (235, 235, 235), (250, 240, 195)):
        assert illumination_of(np.full((64, 64, 3), glass, np.uint8)).gains == (1.0, 1.0, 1.0)


def test_half_of_a_cast_is_taken_away() -> None:
    cast = np.full((64, 64, 3), (240, 230, 120), np.uint8)
    after = np.array((240, 230, 120)) * illumination_of(cast).gains
    assert after.max() / after.min() == pytest.approx(np.sqrt(2.0), rel=1e-6)


def test_cells_and_specks_are_not_taken_for_glass() -> None:
    picture = (drawn_cells(Size(400, 400), PLACES) // 2).astype(np.uint8)
    glass = illumination_of(np.full((64, 64, 3), picture[0, 0], np.uint8))
    picture[::40, ::40] = 255
    assert illumination_of(picture).gains == pytest.approx(glass.gains, rel=0.02)


def test_a_black_picture_and_a_single_pixel_have_a_light() -> None:
    assert all(1 < gain < 6 for gain in illumination_of(np.zeros((40, 40, 3), np.uint8)).gains)
    assert all(gain > 0 for gain in illumination_of(np.full((1, 1, 3), 128, np.uint8)).gains)


def test_values_are_multiplied_by_channel_and_stay_bytes() -> None:
    class Seeing(ColourSegmenter):
        def segment(self, batch):
            self.seen = batch
            return super().segment(batch)

    seeing = Seeing()
    illumination_corrected = IlluminationCorrectedSegmenter(seeing, Illumination((2.0, 1.0, 0.5)))
    assert illumination_corrected.stride_px == seeing.stride_px
    illumination_corrected.segment(np.full((2, 16, 16, 3), 200, np.uint8))
    assert (seeing.seen == np.array([255, 200, 100], np.uint8)).all()


@pytest.mark.parametrize("lamp", [0.4, 0.7, 1.0])
def test_the_same_cells_are_found_under_a_weaker_lamp(lamp: float) -> None:
    picture = np.rint(drawn_cells(Size(480, 480), PLACES) * lamp).astype(np.uint8)
    analysis = analyse_slide(DrawnSlide(picture), models(), PipelineSpec(), execution())
    found = sorted(tuple(round(v) for v in cell.instance.centroid_px0) for cell in analysis.cells)
    assert len(found) == len(PLACES)
    for (x, y), (expected_x, expected_y) in zip(found, sorted(PLACES), strict=True):
        assert abs(x - expected_x) <= 2
        assert abs(y - expected_y) <= 2
