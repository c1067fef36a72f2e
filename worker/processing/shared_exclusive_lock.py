"""A lock for many shared holders or one exclusive holder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedExclusiveLock:
    """Held shared by ordinary scans, and exclusively by a scan that may kill the process.

    A waiting exclusive holder blocks new shared holders.
    """

    def __init__(self) -> None:
        self._shared = 0
        self._exclusive = 0
        """waiting or holding"""
        self._held_exclusively = False
        self._changed = threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Return a context that holds the lock shared; waits for exclusive holders, also waiting ones."""
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
        """Return a context that holds the lock exclusively."""
        with self._changed:
            self._exclusive += 1
            self._changed.wait_for(lambda: not self._shared and not self._held_exclusively)
            self._held_exclusively = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive -= 1
                self._held_exclusively = False
                self._changed.notify_all()
