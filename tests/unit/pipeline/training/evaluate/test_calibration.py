"""Calibration error, risk against coverage, and thresholds, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.data.intervals import ImageGroup
from pipeline.training.evaluate.probability_calibration import (
    NO_CALL,
    ScoredCells,
    binomial_upper,
    calibration_error_of,
    choose_threshold,
    choose_with_disagreement,
    coverage_at_risk_of,
    reliability,
    risk_coverage,
)

ONCE = np.ones((1, 4))


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.95 and 0.97 share the last (one correct of two, mean 0.96); 0.70 and 0.72 share the
    # eleventh (both correct, mean 0.71). ½·|0.5 − 0.96| + ½·|1 − 0.71| = 0.375.
    probabilities = np.array([0.95, 0.97, 0.70, 0.72])
    correct = np.array([True, False, True, True])
    assert calibration_error_of(probabilities, correct)(ONCE) == pytest.approx([0.375])
    last = reliability(probabilities, correct)[-1]
    assert (last.n, last.mean_probability, last.accuracy) == (2, pytest.approx(0.96), 0.5)


def test_calibration_error_of_the_weighted_data_is_that_of_the_repeated_data() -> None:
    rng = np.random.default_rng(3)
    probabilities, correct = rng.random(30), rng.random(30) < 0.6
    times = rng.integers(0, 4, 30)
    repeated = np.repeat(np.arange(30), times)
    once = calibration_error_of(probabilities[repeated], correct[repeated])(np.ones((1, repeated.size)))
    assert calibration_error_of(probabilities, correct)(times[None].astype(float)) == pytest.approx(once)


def test_certainty_lies_in_the_last_bin_and_costs_nothing_when_correct() -> None:
    sure = calibration_error_of(np.ones(4), np.ones(4, np.bool_))
    assert sure(ONCE) == pytest.approx([0.0])
    assert calibration_error_of(np.ones(4), np.zeros(4, np.bool_))(ONCE) == pytest.approx([1.0])


def test_risk_and_coverage_walk_from_the_surest_cell() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.5, NO_CALL])
    correct = np.array([True, True, False, True, False])
    points = risk_coverage(scores, correct)
    # The two cells of 0.8 are called together; the one not called counts in the coverage only.
    assert [(p.threshold, p.coverage) for p in points] == [(0.9, 0.2), (0.8, 0.6), (0.5, 0.8)]
    assert [p.risk for p in points] == pytest.approx([0.0, 1 / 3, 0.25])


def test_coverage_at_a_risk() -> None:
    scores = np.array([0.9, 0.8, 0.7, NO_CALL])
    correct = np.array([True, True, False, True])
    assert coverage_at_risk_of(scores, correct, 0.01)(ONCE) == pytest.approx([0.5])
    assert coverage_at_risk_of(scores, correct, 0.34)(ONCE) == pytest.approx([0.75])
    wrong_first = np.array([False, True, True, True])
    assert coverage_at_risk_of(scores, wrong_first, 0.01)(ONCE) == pytest.approx([0.0])
    # Twice the cell that errs: 2 of 4 wrong.
    assert coverage_at_risk_of(scores, correct, 0.34)(np.array([[1.0, 1, 2, 1]])) == pytest.approx([0.4])


def _cells(count: int = 600, disagreement: float = 0.0) -> ScoredCells:
    """Cells that are correct as often as their score says."""
    rng = np.random.default_rng(11)
    scores = rng.uniform(0.5, 1.0, count)
    return ScoredCells(
        scores=scores,
        correct=rng.random(count) < scores,
        disagreements=np.full(count, disagreement),
        groups=tuple(ImageGroup("set", f"g{index // 2}") for index in range(count)),
    )


def test_the_chosen_threshold_holds_its_promise_with_room_for_chance() -> None:
    cells = _cells()
    choice = choose_threshold(cells, 0.1)
    assert choice is not None
    accepted = cells.scores >= choice.threshold
    assert accepted.mean() == pytest.approx(choice.coverage)
    assert (~cells.correct[accepted]).mean() == pytest.approx(choice.risk)
    assert choice.risk <= choice.risk_upper <= 0.1


def test_less_risk_never_asks_for_less_certainty() -> None:
    cells = _cells()
    choices = [choose_threshold(cells, risk) for risk in (0.06, 0.1, 0.15, 0.2, 0.3)]
    made = [choice for choice in choices if choice is not None]
    assert len(made) >= 3
    thresholds = [choice.threshold for choice in made]
    assert thresholds == sorted(thresholds, reverse=True)
    assert [c.coverage for c in made] == sorted(c.coverage for c in made)


def test_a_higher_threshold_never_calls_more() -> None:
    points = risk_coverage(_cells().scores, _cells().correct)
    assert [p.threshold for p in points] == sorted((p.threshold for p in points), reverse=True)
    assert [p.coverage for p in points] == sorted(p.coverage for p in points)


def test_few_cells_without_an_error_promise_little() -> None:
    # Rule of three: none of n wrong leaves room for about 3/n. Three of ten: 0.607 (Clopper and Pearson).
    bounds = binomial_upper(np.array([0, 0, 3, 2]), np.array([30, 300, 10, 2]))
    assert bounds == pytest.approx([0.0950, 0.00994, 0.6066, 1.0], abs=1e-4)
    few = ScoredCells(
        np.full(20, 0.99),
        np.ones(20, np.bool_),
        np.zeros(20),
        tuple(ImageGroup("s", f"g{i}") for i in range(20)),
    )
    assert choose_threshold(few, 0.1) is None
    assert choose_threshold(few, 0.15) is not None


def test_no_threshold_where_none_is_safe() -> None:
    wrong = ScoredCells(np.array([0.9, 0.8]), np.zeros(2, np.bool_), np.zeros(2), (ImageGroup("s", "a"),) * 2)
    assert choose_threshold(wrong, 0.5) is None
    missed = ScoredCells(np.full(2, NO_CALL), np.zeros(2, np.bool_), np.ones(2), (ImageGroup("s", "a"),) * 2)
    assert choose_threshold(missed, 0.5) is None


def test_disagreement_helps_where_it_tells_errors_that_the_score_does_not() -> None:
    count = 400
    correct = np.arange(count) % 5 > 0
    cells = ScoredCells(
        scores=np.full(count, 0.9),
        correct=correct,
        disagreements=np.where(correct, 0.05, 0.6),
        groups=tuple(ImageGroup("set", f"g{index}") for index in range(count)),
    )
    assert choose_threshold(cells, 0.02) is None
    choice = choose_with_disagreement(cells, 0.02)
    assert choice is not None
    assert (choice.max_disagreement, choice.coverage, choice.risk) == (0.5, pytest.approx(0.8), 0.0)


def test_disagreement_is_not_asked_for_where_it_tells_nothing() -> None:
    choice = choose_with_disagreement(_cells(), 0.1)
    assert choice is not None
    assert choice.max_disagreement == 1.0
