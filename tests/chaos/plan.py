"""Which faults come in which order: seeded, so that a run can be done again."""

from __future__ import annotations

from random import Random

from tests.chaos.faults import FaultKind


def one_of_each(seed: int) -> list[FaultKind]:
    """Return every kind once, in an order of the seed's."""
    kinds = list(FaultKind)
    Random(seed).shuffle(kinds)
    return kinds


def many(seed: int, count: int) -> list[FaultKind]:
    """Return `count` faults: every kind as often as any other, in rounds, each in another order."""
    rounds = -(-count // len(FaultKind))
    return [kind for number in range(rounds) for kind in one_of_each(seed + number)][:count]
