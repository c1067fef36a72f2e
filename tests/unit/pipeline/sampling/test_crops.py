"""Crops at the edge of a scan: its outermost pixels are repeated, and the cell stays in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.geometry import Mpp, Size
from pipeline.sampling.crops import read_crop
from tests.support.drawn import DrawnSlide

CROP = Size(32, 32)


def _scan(width: int = 120, height: int = 90) -> np.ndarray:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :]
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = 7
    return pixels


def _crop(pixels: np.ndarray, centre_px0: tuple[float, float], mpp_um: float = 0.2) -> np.ndarray:
    return read_crop(DrawnSlide(pixels, mpp_um), centre_px0, Mpp(mpp_um), CROP, 0.2)


def test_within_the_scan_the_pixels_are_its_own() -> None:
    pixels = _scan()
    assert np.array_equal(_crop(pixels, (60, 40)), pixels[24:56, 44:76])


@pytest.mark.parametrize("centre", [(3, 40), (118, 40), (60, 2), (60, 88), (1, 1), (119, 89)])
def test_beyond_the_edge_the_edge_is_repeated(centre: tuple[int, int]) -> None:
    pixels = _scan()
    crop = _crop(pixels, centre)
    rows = np.clip(np.arange(centre[1] - 16, centre[1] + 16), 0, 89)
    columns = np.clip(np.arange(centre[0] - 16, centre[0] + 16), 0, 119)
    assert np.array_equal(crop, pixels[np.ix_(rows, columns)])


def test_a_scan_smaller_than_a_crop_stands_in_its_middle() -> None:
    pixels = _scan(20, 12)
    crop = _crop(pixels, (10, 6))
    assert crop.shape == (32, 32, 3)
    assert np.array_equal(crop[10:22, 6:26], pixels)
    assert (crop[:, :, 2] == 7).all()


@pytest.mark.parametrize("mpp_um", [0.07, 0.11, 0.33, 0.9])
def test_the_crop_has_its_size_at_every_scale_and_place(mpp_um: float) -> None:
    pixels = _scan()
    for centre in [(0, 0), (119.5, 89.5), (60, 0.4), (33.3, 71.7)]:
        crop = _crop(pixels, centre, mpp_um)
        assert crop.shape == (32, 32, 3)
        assert (crop[:, :, 2] == 7).all()
