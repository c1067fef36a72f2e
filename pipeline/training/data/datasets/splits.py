"""Reproducible splits by group, independent of order and machine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pipeline.training.data.label_tables import Split

BLOCK = 10
"""this many consecutive file numbers are one group: they may come from one slide"""


def split_groups(labels_of: Mapping[str, Iterable[str]], val_share: float) -> dict[str, Split]:
    """Return the split of every group, given the labels of its pictures.

    Among the groups with the same labels those with the lowest sha256 of their names are val: their share
    rounded, at least one where there are two, never all.
    """
    alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, labels in labels_of.items():
        alike[tuple(sorted(set(labels)))].append(group)
    sides: dict[str, Split] = {}
    for groups in alike.values():
        val = min(max(1, round(val_share * len(groups))), len(groups) - 1)
        for rank, group in enumerate(sorted(groups, key=_hash)):
            sides[group] = Split.VAL if rank < val else Split.TRAIN
    return sides


def block_of(number: int) -> int:
    """Return the first number of the block of a file number."""
    return number // BLOCK * BLOCK


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
