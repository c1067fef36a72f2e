"""Measures on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.model.geometry import Rect
from pipeline.training.data.cell_metrics import (
    Detection,
    confusion,
    detection,
    match_rects,
    overlap,
    rect_iou,
)


def test_confusion_accuracy_and_macro_f1() -> None:
    table = confusion(["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "b", "c"])
    assert table.counts == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert table.accuracy == 0.75
    # F1 of a: 2·2/(3+2) = 0.8; of b: 2·1/(1+2); c does not occur and does not count.
    assert table.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_confusion_of_nothing_is_zero() -> None:
    empty = confusion([], [], ["a"])
    assert (empty.accuracy, empty.macro_f1) == (0.0, 0.0)


@pytest.mark.parametrize(("truth", "guess"), [(["a"], []), (["a"], ["z"]), (["z"], ["a"])])
def test_confusion_refuses_what_does_not_fit(truth: list[str], guess: list[str]) -> None:
    with pytest.raises(ValueError):
        confusion(truth, guess, ["a"])


def test_overlap_counts_only_what_is_known() -> None:
    predicted = np.array([[True, True, False, True]])
    truth = np.array([[True, False, True, False]])
    everywhere = np.ones_like(truth)
    assert overlap(predicted, truth, everywhere).dice == pytest.approx(2 / 5)
    assert overlap(predicted, truth, everywhere).iou == pytest.approx(1 / 4)
    known = np.array([[True, False, True, False]])
    assert overlap(predicted, truth, known).dice == pytest.approx(2 / 3)
    assert overlap(~everywhere, ~everywhere, everywhere).dice == 1.0


def test_rect_iou() -> None:
    assert rect_iou(Rect(0, 0, 10, 10), Rect(5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert rect_iou(Rect(0, 0, 10, 10), Rect(10, 0, 10, 10)) == 0.0


def test_each_box_is_matched_once_best_first() -> None:
    truth = [Rect(0, 0, 10, 10), Rect(100, 0, 10, 10)]
    found = [Rect(2, 0, 10, 10), Rect(0, 0, 10, 9), Rect(50, 50, 10, 10)]
    assert match_rects(found, truth) == ((1, 0),)
    assert detection(found, truth) == Detection(matched=1, found=3, present=2)


def test_nothing_is_detected_in_an_empty_picture() -> None:
    assert detection([], []) == Detection(0, 0, 0)
