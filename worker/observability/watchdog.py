"""Noticing a worker that takes nothing although work waits, which is what hangs look like from outside.

The known way into it: the consumer does not come back after the broker's connection broke, while process,
heartbeats and connection look well. Starting anew is the cure.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from worker.queue.slots import Slots

MISSED_LOOKS = 3
"""A look that comes later than so many intervals says nothing of the time before: the process stood still."""


class Consuming(Protocol):
    """What takes messages for this process."""

    @property
    def rests(self) -> bool:
        """Whether it was told to take nothing more: the process is ending."""
        ...

    @property
    def reserved(self) -> int:
        """Messages that it took from the broker and has not acknowledged."""
        ...


class Watchdog:
    """Judges from looks at the broker. Work waits for this worker where at every look of `after_s` seconds

    - a message lies in the queue, or was taken off it and not begun,
    - a slot is free, and none was taken since the look before,
    - and nobody told the consumer to rest.

    A worker that consumes cannot be in this state: it would be sent the message. Another worker that takes
    the work empties the queue; a message that the broker lost is not in it; a broker that does not answer
    ends the count, and so does a process that stood still. A database that is away fails what is taken, which
    is no idleness.
    """

    def __init__(
        self,
        slots: Slots,
        consuming: Consuming,
        after_s: float,
        every_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._slots = slots
        self._consuming = consuming
        self._after_s = after_s
        self._every_s = every_s
        self._clock = clock
        self._looked_s = clock()
        self._taken = 0
        self._since_s: float | None = None
        self._idle_s = 0.0

    @property
    def idle_s(self) -> float:
        """Seconds, up to the latest look, for which work waited and none was taken; 0 where none did."""
        return self._idle_s

    @property
    def is_stalled(self) -> bool:
        """Whether it has been so for too long. Never, where `after_s` is 0."""
        return 0 < self._after_s < self._idle_s

    def look(self, messages: int | None) -> None:
        """Judge by how many messages lie in the queue; None: the broker did not say."""
        at_s = self._clock()
        went_on = (
            self._slots.taken_so_far == self._taken
            and at_s - self._looked_s <= MISSED_LOOKS * self._every_s
            and self._since_s is not None
        )
        self._looked_s, self._taken = at_s, self._slots.taken_so_far
        if not self._is_stalling(messages):
            self._since_s = None
        elif not went_on:
            self._since_s = at_s
        self._idle_s = 0.0 if self._since_s is None else at_s - self._since_s

    def _is_stalling(self, messages: int | None) -> bool:
        if messages is None or self._consuming.rests:
            return False
        busy = self._slots.busy
        return busy < self._slots.count and (messages > 0 or self._consuming.reserved > busy)
