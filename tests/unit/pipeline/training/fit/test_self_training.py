"""What a teacher may draw, and what a person's label forbids."""

from __future__ import annotations

import numpy as np

from pipeline.training.data.images import resized, resized_labels
from pipeline.training.data.targets import Tissue
from pipeline.training.fit.self_training import completed


def _probabilities(tissue: np.ndarray, sureness: float) -> np.ndarray:
    """What a network would say that sees `tissue` so surely."""
    maps = np.full((3, *tissue.shape), (1 - sureness) / 2, np.float32)
    for index in range(3):
        maps[index][tissue == index] = sureness
    return maps


def _seen() -> np.ndarray:
    seen = np.full((40, 40), Tissue.BACKGROUND, np.uint8)
    seen[8:32, 8:32] = Tissue.CYTOPLASM
    seen[14:26, 14:26] = Tissue.NUCLEUS
    return seen


def test_a_sure_teacher_completes_what_is_unknown() -> None:
    label = np.full((40, 40), Tissue.IGNORED, np.uint8)
    label[15:25, 15:25] = Tissue.CELL
    drawn = completed(label, _probabilities(_seen(), 0.95))
    assert drawn is not None
    assert np.array_equal(drawn, _seen())


def test_an_unsure_teacher_changes_nothing() -> None:
    label = np.full((40, 40), Tissue.IGNORED, np.uint8)
    label[15:25, 15:25] = Tissue.CELL
    drawn = completed(label, _probabilities(_seen(), 0.8))
    assert drawn is not None
    assert np.array_equal(drawn, label)


def test_a_persons_background_stays_and_a_cell_stays_a_cell() -> None:
    label = np.full((40, 40), Tissue.BACKGROUND, np.uint8)
    label[10:30, 10:30] = Tissue.CELL
    seen = _seen()
    seen[12:14, 12:14] = Tissue.BACKGROUND
    drawn = completed(label, _probabilities(seen, 0.95))
    assert drawn is not None
    assert (drawn[:10] == Tissue.BACKGROUND).all(), "the teacher's cytoplasm does not overrule a person"
    assert (drawn[12:14, 12:14] == Tissue.CELL).all(), "nor does its background"
    assert (drawn[16:20, 16:20] == Tissue.NUCLEUS).all()


def test_a_teacher_that_misses_the_cell_is_not_asked() -> None:
    label = np.full((40, 40), Tissue.IGNORED, np.uint8)
    label[15:25, 15:25] = Tissue.CELL
    blind = np.full((40, 40), Tissue.BACKGROUND, np.uint8)
    assert completed(label, _probabilities(blind, 0.99)) is None


def test_labels_stay_where_their_picture_is_when_both_are_reduced() -> None:
    rng = np.random.default_rng(2)
    for side in (90, 101, 120):
        label = np.zeros((side, side), np.uint8)
        y, x = np.mgrid[:side, :side]
        middle = side / 2 + rng.uniform(-3, 3, 2)
        label[(x + 0.5 - middle[0]) ** 2 + (y + 0.5 - middle[1]) ** 2 < 25**2] = 1
        picture = np.repeat(label[..., None] * 200, 3, axis=2)
        factor = 0.43
        small, tissue = resized(picture, factor)[..., 0].astype(float), resized_labels(label, factor)
        for axis in (0, 1):
            place = np.arange(small.shape[axis]) + 0.5
            of_picture = (small.sum(axis=1 - axis) * place).sum() / small.sum()
            of_label = (tissue.sum(axis=1 - axis) * place).sum() / tissue.sum()
            assert abs(of_picture - of_label) < 0.1
