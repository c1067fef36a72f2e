"""Several things of one analysis at once: answers come in the order of what was asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from itertools import islice
from typing import TypeVar

from pipeline.runtime.concurrency.closing import Closing

T = TypeVar("T")
R = TypeVar("R")


class Alone(Closing):
    """A `ports.Crew` without threads: each thing is done when its answer is asked for."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the answers, one after the other."""
        return map(function, items)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Return the function; asked again, it answers again what it answered."""
        return cache(function)

    def close(self) -> None:
        """Nothing is held."""


class ThreadCrew(Closing):
    """A `ports.Crew` of `hands` threads; a context manager that at its end waits for what is at work.

    A map takes `ahead` items before their answers are asked for. What is asked of the crew must not ask the
    crew in turn: its hands may all be full. It is done in the context of whoever asked: what it logs says for
    which scan.
    """

    def __init__(self, ahead: int, hands: int | None = None) -> None:
        self._ahead = ahead
        # Of two maps, of which one feeds the other, neither waits for the other's hands.
        self._hands = ThreadPoolExecutor(hands or 2 * ahead, thread_name_prefix="crew")

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the answers in the order of the items; what an item raises comes in its place."""
        begun = self._begun(function, items)
        flying = deque(islice(begun, self._ahead))
        try:
            while flying:
                answer = flying.popleft().result()
                flying.extend(islice(begun, 1))
                yield answer
        finally:
            for future in flying:
                future.cancel()

    def _begun(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
        """Yield each item's answer to come; where the items end with an error, that error as the last one."""
        source = iter(items)
        while True:
            try:
                item = next(source)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - raised again where its answer is asked for
                failed: Future[R] = Future()
                failed.set_exception(error)
                yield failed
                return
            yield self._hands.submit(copy_context().run, function, item)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Begin it; return what waits for its answer."""
        return self._hands.submit(copy_context().run, function).result

    def close(self) -> None:
        """Wait for what is at work; what has not begun never will."""
        self._hands.shutdown(wait=True, cancel_futures=True)
