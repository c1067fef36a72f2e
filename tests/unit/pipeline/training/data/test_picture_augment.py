"""Whole pictures augmented: what each range does, and that none does nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.training.data.picture_augment import PictureAugment, augmented

PLAIN = PictureAugment(turn=0.0, zoom=0.0, flip_probability=0.0, gain=0.0, channel_gain=0.0, saturation=0.0)


@pytest.fixture
def picture() -> np.ndarray:
    out = np.full((40, 40, 3), (200, 150, 180), np.uint8)
    out[10:16, 18:22] = (60, 20, 90)
    return out


def _many(spec: PictureAugment, picture: np.ndarray, count: int = 30) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [augmented(rng, spec, picture) for _ in range(count)]


def test_no_range_no_change(picture: np.ndarray) -> None:
    assert all(np.array_equal(out, picture) for out in _many(PLAIN, picture))


def test_the_same_generator_gives_the_same_variation(picture: np.ndarray) -> None:
    spec = PictureAugment(0.1, 0.1, 0.5, 0.1, 0.1, 0.1)
    first, again = _many(spec, picture), _many(spec, picture)
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert len({out.tobytes() for out in first}) > 20


def test_flips_mirror_either_axis(picture: np.ndarray) -> None:
    outs = {out.tobytes() for out in _many(replace(PLAIN, flip_probability=0.5), picture)}
    mirrored = (picture, picture[::-1], picture[:, ::-1], picture[::-1, ::-1])
    assert outs == {np.ascontiguousarray(view).tobytes() for view in mirrored}


def test_turning_stays_within_its_range(picture: np.ndarray) -> None:
    middle = np.array([19.5, 19.5])
    for out in _many(replace(PLAIN, turn=0.1), picture):
        rows, columns = np.nonzero(out[:, :, 1] < 85)
        towards = np.array([columns.mean(), rows.mean()]) - middle
        degrees = abs(np.degrees(np.arctan2(towards[0], -towards[1])))
        assert degrees <= 36.0 + 2.0
        assert np.linalg.norm(towards) == pytest.approx(7.0, abs=0.5)


def test_zooming_goes_both_ways_and_stays_within_its_range(picture: np.ndarray) -> None:
    areas = [int((out[:, :, 1] < 85).sum()) for out in _many(replace(PLAIN, zoom=0.3), picture)]
    assert min(areas) < 20 < 28 < max(areas)
    assert max(areas) <= 24 / 0.7**2 + 8


def test_colours_stay_near_and_black_stays_black(picture: np.ndarray) -> None:
    picture[:5] = 0
    spec = replace(PLAIN, gain=0.1, channel_gain=0.05, saturation=0.15)
    for out in _many(spec, picture):
        assert not out[:5].any()
        change = np.abs(out[30, 30].astype(int) - picture[30, 30])
        assert change.max() <= 0.15 * 200 + 0.15 * 30 * 1.15 + 2
