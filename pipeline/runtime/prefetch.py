"""Reading ahead in a thread of its own, by a bounded number of items, in the same order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


def inline(items: Iterable[T]) -> Iterator[T]:
    """Return the items as they are asked for: a `ports.Prefetch` without a thread."""
    return iter(items)


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """A `ports.Prefetch` that holds at most `depth` items ready."""

    depth: int

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items in their order; what their source raises is raised after those before it.

        The thread starts with the first item that is asked for, and has ended when the iterator is exhausted,
        closed or dropped.
        """
        shelf: _Shelf[T] = _Shelf(self.depth)
        thread = threading.Thread(target=shelf.fill, args=(items,), name="prefetch", daemon=True)
        thread.start()
        try:
            yield from shelf.drain()
        finally:
            shelf.stop()
            thread.join()


def prefetch(depth: int) -> ReadAhead:
    """Return a `ports.Prefetch` that reads ahead by at most `depth` items (at least 1)."""
    return ReadAhead(max(1, depth))


class _Shelf(Generic[T]):
    """Between one thread that fills and one that drains."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._ready: deque[T] = deque()
        self._changed = threading.Condition()
        self._exhausted = False
        self._stopped = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that drains
            self._error = error
        finally:
            if isinstance(items, Generator):
                items.close()
            with self._changed:
                self._exhausted = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._ready) < self._depth)
            if not self._stopped:
                self._ready.append(item)
            self._changed.notify_all()
            return not self._stopped

    def drain(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._exhausted)
                if not self._ready:
                    break
                item = self._ready.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
