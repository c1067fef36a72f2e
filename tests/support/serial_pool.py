"""An ordered pool without threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

from pipeline.runtime.concurrency.closing import Closing

T = TypeVar("T")
R = TypeVar("R")


class SerialPool(Closing):
    """A `ports.OrderedPool` without threads: each call runs when its result is needed."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results, one after the other."""
        return map(function, items)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Return the function; called again, it gives the same result without running again."""
        return cache(function)

    def close(self) -> None:
        """Nothing is held."""
