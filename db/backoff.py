"""How long a scan waits before it is tried again."""

from __future__ import annotations

from dataclasses import dataclass

MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Backoff:
    """A delay that doubles with each attempt, up to a limit."""

    first_s: float
    limit_s: float = 300.0
    jitter: float = 0.0
    """the random share of the delay, 0 to 1"""

    def delay_s(self, attempt: int, draw: float = 1.0) -> float:
        """Return the delay after the attempt of this number, counted from 1.

        `draw` is a random number from 0 to 1: with 1 the delay is whole, with 0 shortened by all its jitter.
        """
        doublings = min(max(attempt - 1, 0), MAX_DOUBLINGS)
        return min(self.limit_s, self.first_s * 2.0**doublings) * (1.0 - self.jitter * (1.0 - draw))


AFTER_FAILURE = Backoff(first_s=5.0, jitter=0.5)
"""Jitter, so that scans which failed together do not come back together."""
AFTER_LOST_LEASE = Backoff(first_s=2.0)
