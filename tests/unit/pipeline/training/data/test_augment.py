"""Variation keeps picture and label map together, and is the same for the same seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from pipeline.training.data.augment import Warp, colour_jittered, draw_warp, warped, warped_labels
from pipeline.training.data.targets import Tissue
from pipeline.training.fit.batches import BalancedDraw, prefetched
from pipeline.training.recipe.recipes import Balance, read_recipe

SPEC = read_recipe("light-unet").augment


def test_label_map_moves_with_its_picture() -> None:
    picture = np.full((50, 70, 3), 255, np.uint8)
    cv2.circle(picture, (40, 20), 9, (0, 0, 0), -1)
    tissue = np.where(picture[:, :, 0] == 0, Tissue.NUCLEUS, Tissue.BACKGROUND).astype(np.uint8)
    for seed in range(8):
        warp = draw_warp(np.random.default_rng(seed), SPEC, (50, 70), Warp(np.eye(2, 3), 64))
        dark = warped(picture, warp, cv2.BORDER_CONSTANT)[:, :, 0] < 128
        marked = warped_labels(tissue, warp, cv2.BORDER_CONSTANT) == Tissue.NUCLEUS
        assert dark.any()
        assert (dark ^ marked).sum() < 0.2 * dark.sum()


def test_restaining_varies_by_seed_and_repeats_for_the_same_seed() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first, again, other = (colour_jittered(np.random.default_rng(seed), SPEC, picture) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert first.shape == picture.shape
    assert first.dtype == np.uint8


def test_balanced_draw_lifts_what_is_rare() -> None:
    keys = [("common", "a")] * 900 + [("common", "b")] * 90 + [("rare", "a")] * 10
    drawn = BalancedDraw(keys, Balance(class_power=0.0, folder_power=0.0)).draw(
        np.random.default_rng(3), 4000
    )
    rare = sum(index >= 990 for index in drawn) / 4000
    folder_b = sum(900 <= index < 990 for index in drawn) / 4000
    assert rare == pytest.approx(0.5, abs=0.05)
    assert folder_b == pytest.approx(0.25, abs=0.05)


def test_batches_made_ahead_keep_their_order_and_their_error() -> None:
    assert list(prefetched(iter(range(50)))) == list(range(50))

    def breaks() -> object:
        yield 1
        raise ValueError("torn")

    reader = prefetched(breaks())
    assert next(reader) == 1
    with pytest.raises(ValueError, match="torn"):
        next(reader)


def test_a_reader_that_leaves_early_ends_the_thread() -> None:
    import threading

    before = threading.active_count()
    reader = prefetched(iter(range(10_000)))
    next(reader)
    reader.close()
    assert threading.active_count() == before
