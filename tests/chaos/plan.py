"""Which faults come in which order: seeded, so that a run can be done again."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.chaos.faults import FAULTS, FaultKind

SINGLE_DEATHS = tuple(kind for kind, fault in FAULTS.items() if fault.single_death)


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of a run, in their order."""

    alone: tuple[FaultKind, ...] = ()
    """each comes to a whole set, and is over before the next"""
    close: tuple[FaultKind, ...] = ()
    """each comes soon after the one before it, whatever state the set is in"""


def one_of_each(seed: int) -> tuple[FaultKind, ...]:
    """Return every kind once, in an order of the seed's."""
    kinds = list(FaultKind)
    Random(seed).shuffle(kinds)
    return tuple(kinds)


def many(seed: int, count: int) -> tuple[FaultKind, ...]:
    """Return `count` faults: every kind as often as any other, in rounds, each in another order."""
    rounds = -(-count // len(FaultKind))
    return tuple(kind for number in range(rounds) for kind in one_of_each(seed + number))[:count]
