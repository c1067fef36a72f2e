"""Bootstrap over groups, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.data.intervals import (
    NOTHING,
    Estimate,
    ImageGroup,
    estimate,
    group_weights,
    macro_f1_of,
    mean_of,
    ratio_of,
    share_of,
)


def _singles(count: int) -> list[ImageGroup]:
    return [ImageGroup("set", f"g{index}") for index in range(count)]


def test_items_of_a_group_are_drawn_together_and_as_many_groups_as_there_are() -> None:
    groups = [ImageGroup("set", name) for name in ("a", "a", "b", "c")]
    weights = group_weights(groups, resamplings=50)
    assert weights.shape == (51, 4)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[1:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_groups_are_drawn_within_their_stratum() -> None:
    groups = [ImageGroup("one", "a"), ImageGroup("one", "b"), ImageGroup("two", "a"), ImageGroup("two", "b")]
    weights = group_weights(groups, resamplings=50)
    assert (weights[:, :2].sum(axis=1) == 2).all()
    assert (weights[:, 2:].sum(axis=1) == 2).all()
    assert not (weights[:, 0] == weights[:, 2]).all()


def test_same_seed_same_weights_other_seed_others() -> None:
    groups = _singles(20)
    assert (group_weights(groups, seed=1) == group_weights(groups, seed=1)).all()
    assert not (group_weights(groups, seed=1) == group_weights(groups, seed=2)).all()


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    hits = np.arange(100) < 80
    answer = estimate(share_of(hits), group_weights(_singles(100)))
    assert answer.value == pytest.approx(0.8)
    assert answer.low is not None
    assert answer.high is not None
    # 0.8 ± 1.96·√(0.8·0.2/100)
    assert answer.low == pytest.approx(0.722, abs=0.015)
    assert answer.high == pytest.approx(0.878, abs=0.015)


def test_near_duplicates_widen_the_interval() -> None:
    hits = np.repeat(np.arange(20) < 16, 5)
    alone = estimate(share_of(hits), group_weights(_singles(100)))
    grouped = estimate(share_of(hits), group_weights([ImageGroup("s", f"g{i // 5}") for i in range(100)]))
    assert grouped.value == alone.value
    assert _width(grouped) > 1.8 * _width(alone)


def _width(answer: Estimate) -> float:
    assert answer.low is not None
    assert answer.high is not None
    return answer.high - answer.low


def test_a_single_group_has_no_interval_and_no_item_no_figure() -> None:
    single = group_weights([ImageGroup("set", "a")] * 5)
    assert estimate(mean_of(np.arange(5.0)), single) == Estimate(2.0, None, None)
    assert estimate(mean_of(np.zeros(0)), group_weights([])) == NOTHING
    never = ratio_of(np.zeros(5), np.zeros(5))
    assert estimate(never, group_weights(_singles(5))) == NOTHING


def test_what_one_of_several_groups_tells_has_no_interval() -> None:
    groups = [ImageGroup("set", name) for name in ("a", "a", "b", "c")]
    of_a = group_weights(groups)[:, :2]
    assert estimate(mean_of(np.array([0.0, 1.0])), of_a) == Estimate(0.5, None, None)


def test_what_never_varies_has_an_interval_without_width() -> None:
    answer = estimate(mean_of(np.full(10, 0.5)), group_weights(_singles(10)))
    assert (answer.value, answer.low, answer.high) == pytest.approx((0.5, 0.5, 0.5))


def test_macro_f1_is_that_of_the_confusion_table() -> None:
    # a a a b said a a b b: F1 of a 0.8, of b 2/3; c does not occur.
    statistic = macro_f1_of(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    weights = np.array([[1.0, 1, 1, 1], [1, 1, 0, 1], [2, 0, 0, 0]])
    assert statistic(weights) == pytest.approx([(0.8 + 2 / 3) / 2, 1.0, 1.0])


def test_ratios_pool_counts() -> None:
    # 1 of 2 and 3 of 3: pooled 4 of 5, not the mean of the ratios.
    statistic = ratio_of(np.array([1.0, 3.0]), np.array([2.0, 3.0]))
    assert statistic(np.array([[1.0, 1.0], [2.0, 0.0]])) == pytest.approx([0.8, 0.5])
