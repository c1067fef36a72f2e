"""Folds: whole groups, every group val once, classes spread."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.errors import UsageError
from pipeline.training.data.folds import Fold, fold_of, val_groups

GROUPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=40, max_size=120)


@settings(max_examples=40, deadline=None)
@given(GROUPS, st.integers(2, 5), st.integers(0, 9))
def test_every_group_is_val_in_exactly_one_fold(groups: list[tuple[int, int]], count: int, seed: int) -> None:
    if len(set(groups)) < count:
        return
    folds = [val_groups(groups, Fold(number, count), seed) for number in range(1, count + 1)]
    assert sorted(group for fold in folds for group in fold) == sorted(set(groups))


def test_kinds_are_spread_evenly() -> None:
    groups = [(kind, number) for kind in (0, 1) for number in range(10) for _ in range(3)]
    for number in range(1, 6):
        chosen = val_groups(groups, Fold(number, 5), 7)
        assert [sum(group[0] == kind for group in chosen) for kind in (0, 1)] == [2, 2]


def test_the_order_of_the_pictures_does_not_matter_and_the_seed_does() -> None:
    groups = [(0, number) for number in range(20)]
    assert val_groups(groups, Fold(1, 4), 1) == val_groups(groups[::-1], Fold(1, 4), 1)
    assert val_groups(groups, Fold(1, 4), 1) != val_groups(groups, Fold(1, 4), 2)


def test_more_folds_than_groups_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="2 groups"):
        val_groups([("a",), ("b",), ("a",)], Fold(1, 3), 0)


@pytest.mark.parametrize("text", ["", "0/5", "a/b", "3", "-1/5", "1/5/2"])
def test_what_is_no_fold_is_a_sentence(text: str) -> None:
    with pytest.raises(UsageError):
        fold_of(text)
