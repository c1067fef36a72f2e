"""STAT priority within a process: routine scans wait while a STAT scan is analysed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

MAX_WAIT_S = 60.0
"""How long one routine scan waits in total, so that many STAT scans do not block it for ever."""


class PriorityGate:
    """Closed for the routine scans of a process while one of its STAT scans is analysed."""

    def __init__(self, max_wait_s: float = MAX_WAIT_S) -> None:
        self._max_wait_s = max_wait_s
        self._urgent = 0
        self._changed = threading.Condition()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Return a context around the analysis of a STAT scan, in which the gate is closed."""
        with self._changed:
            self._urgent += 1
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify_all()

    def waiter(self) -> Callable[[], None]:
        """Return the function that a routine scan calls between steps; it blocks while the gate is closed."""
        remaining_s = self._max_wait_s

        def wait() -> None:
            nonlocal remaining_s
            if not self._urgent or remaining_s <= 0:
                return
            started_s = monotonic()
            with self._changed:
                self._changed.wait_for(lambda: not self._urgent, remaining_s)
            remaining_s -= monotonic() - started_s

        return wait
