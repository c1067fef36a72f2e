"""Cross-validation splits: one of several folds, in whole groups, is val."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.model.errors import UsageError


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold `number` of `count`, counted from 1."""

    number: int
    count: int


def fold_of(text: str) -> Fold:
    """Return the fold of '2/5'. Raises: UsageError, where it is none."""
    match = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
        raise UsageError(f"'{text}' is no fold; the second of five is 2/5.", code="bad_recipe")
    return Fold(int(match[1]), int(match[2]))


def val_groups(groups: Sequence[Hashable], fold: Fold, seed: int) -> frozenset[Hashable]:
    """Return the groups whose pictures are val, each group in one fold only.

    Groups are assigned by falling size, each to the fold with the fewest pictures of its kind; a group's
    kind is its first element where it is a tuple. Raises: UsageError, for fewer groups than folds.
    """
    sizes: dict[Hashable, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < fold.count:
        raise UsageError(
            f"{len(sizes)} groups cannot be split into {fold.count} folds.", code="too_few_groups"
        )
    order = sorted(sizes, key=str)
    np.random.default_rng(seed).shuffle(order)
    order.sort(key=lambda group: -sizes[group])
    loads: dict[Hashable, list[int]] = {}
    totals = [0] * fold.count
    chosen: set[Hashable] = set()
    for group in order:
        load = loads.setdefault(_kind(group), [0] * fold.count)
        part = min(range(fold.count), key=lambda index: (load[index], totals[index]))
        load[part] += sizes[group]
        totals[part] += sizes[group]
        if part == fold.number - 1:
            chosen.add(group)
    return frozenset(chosen)


def _kind(group: Hashable) -> Hashable:
    return group[0] if isinstance(group, tuple) else None
