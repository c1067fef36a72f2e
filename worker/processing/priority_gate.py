"""STAT goes first within a process too: while a STAT scan is analysed, routine scans stand aside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

PATIENCE_S = 60.0
"""So long one routine scan stands aside in all: behind STAT after STAT it gets on as well."""


class RightOfWay:
    """Who is analysed for STAT in this process, and who waits for it."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._urgent = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Return a context that spans the analysis of a STAT scan."""
        with self._changed:
            self._urgent += 1
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify_all()

    def giving_way(self) -> Callable[[], None]:
        """Return what one routine scan calls between two steps: it returns when no STAT scan is analysed."""
        left_s = self._patience_s

        def give_way() -> None:
            nonlocal left_s
            if not self._urgent or left_s <= 0:
                return
            begun_s = monotonic()
            with self._changed:
                self._changed.wait_for(lambda: not self._urgent, left_s)
            left_s -= monotonic() - begun_s

        return give_way
