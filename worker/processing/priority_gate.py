"""STAT goes first within a process too: while a STAT scan is analysed, routine scans wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

MAX_WAIT_S = 60.0
"""So long one routine scan waits in all: behind STAT after STAT it gets on as well."""


class PriorityGate:
    """Closed for the routine scans of a process while one of its STAT scans is analysed."""

    def __init__(self, max_wait_s: float = MAX_WAIT_S) -> None:
        self._max_wait_s = max_wait_s
        self._urgent = 0
        self._changed = threading.Condition()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Return a context that spans the analysis of a STAT scan."""
        with self._changed:
            self._urgent += 1
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify_all()

    def waiter(self) -> Callable[[], None]:
        """Return what one routine scan calls between two steps: it returns when the gate is open."""
        left_s = self._max_wait_s

        def wait() -> None:
            nonlocal left_s
            if not self._urgent or left_s <= 0:
                return
            begun_s = monotonic()
            with self._changed:
                self._changed.wait_for(lambda: not self._urgent, left_s)
            left_s -= monotonic() - begun_s

        return wait
