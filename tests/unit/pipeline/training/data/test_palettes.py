"""A picture takes on another's colours and keeps its shapes; what no recipe asks for changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from pipeline.model.domain import Rgb
from pipeline.training.data.palettes import Palettes, colour_transferred, palette_of


def _picture(colour: tuple[int, int, int], seed: int = 0) -> Rgb:
    noise = np.random.default_rng(seed).normal(0, 12, (48, 48, 1))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


VIOLET, BROWN = _picture((150, 110, 170)), _picture((160, 130, 100), seed=1)


def test_the_whole_way_ends_at_the_other_palette() -> None:
    painted = palette_of(colour_transferred(VIOLET, palette_of(VIOLET), palette_of(BROWN), 1.0))
    assert painted.mean == pytest.approx(palette_of(BROWN).mean, abs=1.5)
    assert painted.deviation[0] == pytest.approx(palette_of(BROWN).deviation[0], rel=0.1)


def test_no_part_of_the_way_leaves_the_picture_as_it_was() -> None:
    painted = colour_transferred(VIOLET, palette_of(VIOLET), palette_of(BROWN), 0.0)
    assert np.abs(painted.astype(int) - VIOLET).max() <= 4  # 8-bit CIELAB and back


def test_brighter_pixels_stay_brighter() -> None:
    painted = colour_transferred(VIOLET, palette_of(VIOLET), palette_of(BROWN), 1.0)
    before, after = VIOLET.mean(axis=2).ravel(), painted.mean(axis=2).ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.98


def test_every_data_set_is_as_likely_however_large_it_is() -> None:
    large = [("large", _picture((150, 110, 170), seed)) for seed in range(30)]
    palettes = Palettes([*large, ("small", BROWN)], probability=1.0)
    rng = np.random.default_rng(5)
    grey = _picture((140, 140, 140), seed=2)
    lent = [palette_of(palettes.transferred(rng, grey)).mean[2] for _ in range(300)]
    towards_brown = sum(value > palette_of(grey).mean[2] for value in lent) / 300
    assert towards_brown == pytest.approx(0.5, abs=0.1)


def test_the_probability_of_a_transfer_holds_and_repeats_for_the_same_seed() -> None:
    palettes = Palettes([("other", BROWN)], probability=0.25)
    turns = [
        [palettes.transferred(rng, VIOLET) for _ in range(400)] for rng in map(np.random.default_rng, (7, 7))
    ]
    changed = sum(picture is not VIOLET for picture in turns[0]) / 400
    assert changed == pytest.approx(0.25, abs=0.07)
    assert all((first == again).all() for first, again in zip(*turns, strict=True))


def test_no_random_number_is_drawn_at_probability_0() -> None:
    rng = np.random.default_rng(3)
    assert Palettes([("other", BROWN)], probability=0.0).transferred(rng, VIOLET) is VIOLET
    assert rng.random() == np.random.default_rng(3).random()
