"""A lock that several hold at once, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedExclusiveLock:
    """Held shared by ordinary scans; held exclusively by one that may kill the process.

    A scan that wants it exclusively waits for those inside, and keeps later ones out meanwhile.
    """

    def __init__(self) -> None:
        self._shared = 0
        self._exclusive = 0
        """waiting or inside"""
        self._exclusive_inside = False
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Return a context among others; waits while somebody holds the lock exclusively, or waits to."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._shared += 1
        try:
            yield
        finally:
            with self._changed:
                self._shared -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Return a context with nobody else inside."""
        with self._changed:
            self._exclusive += 1
            self._changed.wait_for(lambda: not self._shared and not self._exclusive_inside)
            self._exclusive_inside = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive -= 1
                self._exclusive_inside = False
                self._changed.notify_all()
