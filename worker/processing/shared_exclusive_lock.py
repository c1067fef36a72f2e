"""Who may be at work in one process at once: scans together, or one that is suspected alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Lets scans in together; one that may kill the process waits until it is alone, and keeps others out."""

    def __init__(self) -> None:
        self._inside = 0
        self._suspects = 0
        """waiting or inside"""
        self._suspect_inside = False
        self._changed = threading.Condition()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Return a context among others; waits while a suspect is inside, or waits to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Return a context with nobody else inside."""
        with self._changed:
            self._suspects += 1
            self._changed.wait_for(lambda: not self._inside and not self._suspect_inside)
            self._suspect_inside = True
        try:
            yield
        finally:
            with self._changed:
                self._suspects -= 1
                self._suspect_inside = False
                self._changed.notify_all()
