"""What a benchmark yields, and how long something takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table."""

    value: float
    unit: str
    target: float | None = None


def seconds(work: Callable[[], object]) -> float:
    """Return the median of several runs after one to warm up."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start_s = perf_counter()
        work()
        taken.append(perf_counter() - start_s)
    return median(taken)
