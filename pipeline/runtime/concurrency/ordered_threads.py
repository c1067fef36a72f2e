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


class SerialPool(Closing):
    """A `ports.OrderedPool` without threads: each thing is done when its answer is asked for."""

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the answers, one after the other."""
        return map(function, items)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Return the function; asked again, it answers again what it answered."""
        return cache(function)

    def close(self) -> None:
        """Nothing is held."""


class OrderedThreadPool(Closing):
    """A `ports.OrderedPool` of `threads` threads; a context manager that at its end waits for running calls.

    A map takes `ahead` items before their answers are asked for. A call must not use the pool in turn: all
    threads may be busy. It runs in the context of whoever asked: what it logs says for which scan.
    """

    def __init__(self, ahead: int, threads: int | None = None) -> None:
        self._ahead = ahead
        # Of two maps, of which one feeds the other, neither waits for the other's threads.
        self._threads = ThreadPoolExecutor(threads or 2 * ahead, thread_name_prefix="analysis")

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
            yield self._threads.submit(copy_context().run, function, item)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Begin it; return what waits for its answer."""
        return self._threads.submit(copy_context().run, function).result

    def close(self) -> None:
        """Wait for what is at work; what has not begun never will."""
        self._threads.shutdown(wait=True, cancel_futures=True)
