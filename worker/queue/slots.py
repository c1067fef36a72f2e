"""The slots of a worker: how many scans it analyses at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """Counts the slots, those in use, and how often one was taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._busy = 0
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        return self._busy

    @property
    def total_taken(self) -> int:
        """How many messages have taken a slot so far."""
        return self._taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Return a context that occupies one slot."""
        with self._lock:
            self._busy += 1
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
