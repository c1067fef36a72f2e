"""Splits hold together what belongs together, whatever the order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.data.datasets.splits import split_groups
from pipeline.training.data.label_tables import Split

GROUPS = st.dictionaries(
    st.text(min_size=1, max_size=6), st.sets(st.sampled_from("abc"), min_size=1), max_size=60
)


@given(GROUPS, st.floats(0.05, 0.5))
@settings(max_examples=200, deadline=None)
def test_the_order_of_groups_changes_nothing(groups: dict[str, set[str]], share: float) -> None:
    backwards = dict(reversed([(name, sorted(labels, reverse=True)) for name, labels in groups.items()]))
    assert split_groups(groups, share) == split_groups(backwards, share)
    assert split_groups(groups, share).keys() == groups.keys()


@given(GROUPS, st.floats(0.05, 0.5))
@settings(max_examples=200, deadline=None)
def test_no_kind_of_group_is_all_val_and_two_give_both_sides(
    groups: dict[str, set[str]], share: float
) -> None:
    sides = split_groups(groups, share)
    for labels in {tuple(sorted(labels)) for labels in groups.values()}:
        kind = [sides[name] for name, found in groups.items() if tuple(sorted(found)) == labels]
        assert Split.TRAIN in kind
        assert (Split.VAL in kind) == (len(kind) > 1)
        assert abs(kind.count(Split.VAL) - share * len(kind)) <= 1


def test_which_groups_are_val_is_the_same_everywhere() -> None:
    sides = split_groups({f"g{n}": ["a"] for n in range(10)}, 0.3)
    assert {name for name, side in sides.items() if side is Split.VAL} == {"g6", "g8", "g9"}
