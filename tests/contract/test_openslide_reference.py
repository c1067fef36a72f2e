"""Tiles on the fast path have the pixels that OpenSlide, the reference, gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.readers import open_slide
from pipeline.synth.tiff_writer import write_pyramid
from tests.support.scan_files import smooth_rgb

WIDTH, HEIGHT = 2300, 1500
SEED = 4


def _windows(width: int, height: int) -> list[Rect]:
    """Return the corners of a level, whole tiles, and windows anywhere; all within the level."""
    rng = np.random.default_rng(SEED)
    drawn = [
        Rect(int(rng.integers(0, width - w)), int(rng.integers(0, height - h)), w, h)
        for w, h in rng.integers(1, min(700, width, height), (12, 2)).tolist()
    ]
    side = min(256, width, height)
    return [Rect(0, 0, side, side), Rect(width - side, height - side, side, side), *drawn]


def _reference(slide: openslide.OpenSlide, level: int, rect_lv: Rect) -> Rgb:
    scale = slide.level_downsamples[level]
    place_px0 = (round(rect_lv.x * scale), round(rect_lv.y * scale))
    picture = slide.read_region(place_px0, level, (rect_lv.width, rect_lv.height))
    pixels = np.asarray(picture)
    assert (pixels[..., 3] == 255).all()
    return np.asarray(pixels[..., :3], np.uint8)


def _require_same_pixels(path: Path, levels: int) -> None:
    with open_slide(path) as ours, openslide.OpenSlide(str(path)) as theirs:
        assert theirs.level_count == len(ours.meta.levels) == levels
        for number, level in enumerate(ours.meta.levels):
            assert theirs.level_dimensions[number] == (level.size_lv.width, level.size_lv.height)
            for rect_lv in _windows(level.size_lv.width, level.size_lv.height):
                expected = _reference(theirs, number, rect_lv)
                assert np.array_equal(ours.read(number, rect_lv), expected), (number, rect_lv)


@pytest.mark.data
def test_a_real_svs_has_the_pixels_of_the_reference(shared_data: Path) -> None:
    _require_same_pixels(shared_data / "slide_fixtures" / "CMU-1-Small-Region.svs", levels=1)


def test_a_pyramid_has_the_pixels_of_the_reference_on_every_level(tmp_path: Path) -> None:
    picture = smooth_rgb(WIDTH, HEIGHT)

    def read(rect: Rect) -> Rgb:
        return picture[rect.y : rect.bottom, rect.x : rect.right]

    path = tmp_path / "pyramid.tif"
    write_pyramid(path, Size(WIDTH, HEIGHT), read, Mpp(0.25))
    _require_same_pixels(path, levels=3)
