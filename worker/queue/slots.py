"""The places in which a worker analyses scans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """How many places there are, how many are taken, and how often one was taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._busy = 0
        self._taken = 0
        self._changing = threading.Lock()

    @property
    def busy(self) -> int:
        return self._busy

    @property
    def taken_so_far(self) -> int:
        """How often a place was taken; grows with each message."""
        return self._taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Return a context that takes a place: from a message to the end of its work."""
        with self._changing:
            self._busy += 1
            self._taken += 1
        try:
            yield
        finally:
            with self._changing:
                self._busy -= 1
