"""Runs several calls of one analysis at once, and gives their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

from pipeline.runtime.concurrency.closing import Closing

T = TypeVar("T")
R = TypeVar("R")


class OrderedThreadPool(Closing):
    """A `ports.OrderedPool` of threads; a context manager that at its end waits for running calls.

    A map starts up to `read_ahead` items before their results are needed. A call must not use the pool
    itself: all threads may be busy. It runs in the caller's context, so that its log lines name the scan.
    """

    def __init__(self, read_ahead: int) -> None:
        self._read_ahead = read_ahead
        # Twice as many threads: where one map feeds another, neither waits for the other's threads.
        self._threads = ThreadPoolExecutor(2 * read_ahead, thread_name_prefix="analysis")

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in the order of the items; what an item raises comes in its place."""
        submitted = self._submitted(function, items)
        pending = deque(islice(submitted, self._read_ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(islice(submitted, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()

    def _submitted(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[Future[R]]:
        """Yield the future of each item; if `items` itself raises, a last future with that error."""
        source = iter(items)
        while True:
            try:
                item = next(source)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - raised again by the future
                failed: Future[R] = Future()
                failed.set_exception(error)
                yield failed
                return
            yield self._threads.submit(copy_context().run, function, item)

    def begin(self, function: Callable[[], T]) -> Callable[[], T]:
        """Start the call; return a function that waits for its result."""
        return self._threads.submit(copy_context().run, function).result

    def close(self) -> None:
        """Wait for the running calls; those that have not started are cancelled."""
        self._threads.shutdown(wait=True, cancel_futures=True)
