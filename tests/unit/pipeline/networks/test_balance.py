"""Colours of a crop, balanced by its own glass and its own chromatin."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.networks.colour_balance import CHROMATIN, CHROMATIN_RGB, GLASS, ColourBalance, StainBalance


def _crop(glass: tuple[int, int, int], nucleus: tuple[int, int, int]) -> np.ndarray:
    crop = np.empty((64, 64, 3), np.uint8)
    crop[...] = glass
    crop[20:44, 20:44] = nucleus
    return crop


def _balanced(*crops: np.ndarray) -> np.ndarray:
    return ColourBalance()(torch.from_numpy(np.stack(crops))).numpy()


def test_glass_becomes_the_same_white_whatever_its_cast() -> None:
    out = _balanced(_crop((250, 240, 120), (110, 40, 60)), _crop((110, 100, 90), (60, 50, 70)))
    assert np.allclose(out[:, 0, 0], GLASS, atol=0.5)


def test_the_darkest_part_becomes_equally_dark() -> None:
    out = _balanced(_crop((240, 240, 240), (90, 30, 120)), _crop((120, 118, 116), (75, 60, 90)))
    assert np.allclose(out[:, 32, 32].mean(axis=1), CHROMATIN, atol=1.0)


def test_a_brighter_lamp_changes_next_to_nothing() -> None:
    rng = np.random.default_rng(3)
    crop = (_crop((200, 190, 180), (90, 50, 110)) + rng.integers(0, 12, (64, 64, 3))).astype(np.uint8)
    brighter = np.rint(crop * 1.15).astype(np.uint8)
    dim, bright = _balanced(crop, brighter)
    assert np.abs(dim - bright).mean() < 1.0


def test_a_crop_of_glass_alone_stays_glass() -> None:
    out = _balanced(np.full((64, 64, 3), 200, np.uint8))
    assert np.allclose(out, GLASS, atol=0.5)


def test_values_stay_within_a_byte_and_crops_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    together = _balanced(*crops)
    assert together.min() >= 0
    assert together.max() <= 255
    assert np.allclose(together[1], _balanced(crops[1])[0], atol=1e-3)


def _stained(*crops: np.ndarray) -> np.ndarray:
    return StainBalance()(torch.from_numpy(np.stack(crops))).numpy()


def test_chromatin_of_any_dye_becomes_one_colour() -> None:
    purple, blue, red = _stained(
        _crop((235, 235, 235), (90, 50, 130)),
        _crop((240, 238, 230), (75, 60, 130)),
        _crop((250, 240, 120), (100, 50, 60)),
    )
    for picture in (purple, blue, red):
        assert np.allclose(picture[32, 32], CHROMATIN_RGB, atol=3.0)
        assert np.allclose(picture[0, 0], GLASS, atol=0.5)


def test_stain_balance_keeps_the_order_of_darkness_and_glass_alone() -> None:
    crop = _crop((220, 215, 200), (80, 50, 110))
    crop[24:30, 24:30] = (150, 130, 160)
    out = _stained(crop)[0].mean(axis=2)
    assert out[32, 32] < out[26, 26] < out[0, 0]
    assert np.allclose(_stained(np.full((64, 64, 3), 200, np.uint8)), GLASS, atol=0.5)


def test_stain_balance_of_a_crop_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(5)
    crops = rng.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    together = _stained(*crops)
    assert together.min() >= 0
    assert together.max() <= GLASS
    assert np.allclose(together[1], _stained(crops[1])[0], atol=1e-3)
