"""Members beside their mean: the verdict follows the paired interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.errors import UsageError
from pipeline.training.data.intervals import Estimate, ImageGroup
from pipeline.training.evaluate.members import (
    MEAN,
    Comparison,
    ComparisonOutcome,
    MemberValues,
    by_measure,
    compare,
    verdict_of,
)


def _values(folders: tuple[str, ...] = (), **values: np.ndarray) -> MemberValues:
    count = len(values[MEAN])
    return MemberValues(
        measure="group_accuracy",
        folders=folders or ("set",) * count,
        groups=tuple(ImageGroup("set", f"g{index}") for index in range(count)),
        values=values,
    )


def compare_one(values: MemberValues) -> tuple[Comparison, ...]:
    return compare((values,))


def test_the_mean_wins_where_it_is_right_more_often_on_the_same_cells() -> None:
    count = 200
    # Each member errs on a quarter of the cells of its own; the mean on none of them.
    members = {name: (np.arange(count) % 4 != index) * 1.0 for index, name in enumerate(("a", "b", "c"))}
    (comparison,) = compare_one(_values(**members, mean=np.ones(count)))
    assert comparison.better is ComparisonOutcome.YES
    assert comparison.difference.value == pytest.approx(0.25)
    assert (comparison.n, comparison.groups) == (200, 200)
    assert [figure.name for figure in comparison.members] == ["a", "b", "c"]


def test_the_pairing_sees_a_small_difference_that_the_plain_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random(400) < 0.3
    member = np.where(hard, 0.5, 0.9)
    (comparison,) = compare_one(_values(a=member, mean=member + 0.01))
    assert comparison.better is ComparisonOutcome.YES
    (figure,) = comparison.members
    assert figure.estimate.high is not None
    assert comparison.mean.low is not None
    assert comparison.mean.low < figure.estimate.high


def test_chance_is_undecided_and_a_worse_mean_is_said_to_be_worse() -> None:
    rng = np.random.default_rng(6)
    noise = rng.random((2, 100)).round()
    (even,) = compare_one(_values(a=noise[0], mean=noise[1]))
    assert even.better is ComparisonOutcome.UNDECIDED
    (worse,) = compare_one(_values(a=np.ones(100), mean=(np.arange(100) % 3 > 0) * 1.0))
    assert worse.better is ComparisonOutcome.NO


def test_the_best_member_is_the_one_to_beat() -> None:
    (comparison,) = compare_one(_values(weak=np.zeros(10), strong=np.ones(10), mean=np.ones(10)))
    assert comparison.best == ("strong",)
    assert comparison.difference == Estimate(0.0, 0.0, 0.0)
    assert comparison.better is ComparisonOutcome.UNDECIDED


def test_each_set_has_its_comparison_and_all_together_one() -> None:
    comparisons = compare_one(_values(("x", "x", "y", "y"), a=np.array([1.0, 0, 1, 1]), mean=np.ones(4)))
    assert [(c.data_set, c.n) for c in comparisons] == [("x", 2), ("y", 2), ("all", 4)]


def test_figures_of_several_seeds_are_means_over_them() -> None:
    one = _values(a=np.array([1.0, 0.0]), mean=np.array([1.0, 1.0]))
    two = _values(a=np.array([1.0, 1.0]), mean=np.array([0.0, 1.0]))
    (together,) = compare((one, two))
    assert (together.seeds, together.n) == (2, 2)
    assert together.members[0].estimate.value == pytest.approx(0.75)
    assert together.mean.value == pytest.approx(0.75)
    assert together.difference.value == pytest.approx(0.0)


def test_each_seed_has_its_own_best_member_to_beat() -> None:
    one = _values(a=np.full(20, 0.8), b=np.full(20, 0.6), mean=np.full(20, 0.9))
    two = _values(a=np.full(20, 0.6), b=np.full(20, 0.8), mean=np.full(20, 0.9))
    (together,) = compare((one, two))
    assert together.best == ("a", "b")
    assert together.difference.value == pytest.approx(0.1)
    assert together.better is ComparisonOutcome.YES


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    member = rng.random(300) / 2
    gains = (0.06, 0.05, -0.05)
    seeds = [_values(a=member, mean=member + gain) for gain in gains]
    assert [compare_one(seed)[0].better for seed in seeds] == [
        ComparisonOutcome.YES,
        ComparisonOutcome.YES,
        ComparisonOutcome.NO,
    ]
    (together,) = compare(seeds)
    assert together.difference.value == pytest.approx(0.02)
    assert together.difference.low == pytest.approx(-0.05)
    assert together.difference.high == pytest.approx(0.06)
    assert together.better is ComparisonOutcome.UNDECIDED


def test_the_interval_over_seeds_holds_that_over_groups_too() -> None:
    rng = np.random.default_rng(8)
    gain = rng.normal(0.02, 0.2, 60)
    alike = [_values(a=np.zeros(60), mean=gain) for _ in range(3)]
    (one,), (three,) = compare(alike[:1]), compare(alike)
    assert three.difference.value == pytest.approx(one.difference.value)
    assert three.difference.low == pytest.approx(one.difference.low)
    assert three.difference.high == pytest.approx(one.difference.high)


def test_other_members_or_other_pictures_are_no_seeds() -> None:
    one = _values(a=np.ones(2), mean=np.ones(2))
    with pytest.raises(UsageError):
        compare((one, _values(b=np.ones(2), mean=np.ones(2))))
    with pytest.raises(UsageError):
        compare((one, _values(a=np.ones(3), mean=np.ones(3))))
    with pytest.raises(UsageError):
        list(by_measure([(one,), (replace(one, measure="dice"),)]))


def test_one_group_leaves_the_verdict_open() -> None:
    assert verdict_of(Estimate(0.3)) is ComparisonOutcome.UNDECIDED
