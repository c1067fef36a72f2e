"""Detects a stalled worker: one that takes no messages although some are waiting.

The known cause: the consumer does not recover after the broker connection broke, while process, heartbeats
and connection look healthy. A restart fixes it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from worker.queue.slots import Slots

MAX_MISSED_CHECKS = 3
"""A check that is late by this many intervals says nothing about the time before: the process was
suspended."""


class MessageConsumer(Protocol):
    """The message consumer of this process."""

    @property
    def is_ending(self) -> bool:
        """Whether it is shutting down and takes no more messages."""
        ...

    @property
    def reserved(self) -> int:
        """Messages taken from the broker and not yet acknowledged."""
        ...


class Watchdog:
    """Decides from periodic checks of the queue. A worker is stalled if at every check for `after_s` seconds

    - a message is in the queue, or was taken from it and not started,
    - a slot is free, and none was taken since the previous check,
    - and the consumer is not shutting down.

    A working consumer cannot be in this state: the broker would deliver the message. If another worker takes
    the messages, the queue becomes empty. An unreachable broker resets the count, and so does a suspended
    process. An unreachable database makes tasks fail, but they are taken, so the worker is not idle.
    """

    def __init__(
        self,
        slots: Slots,
        consumer: MessageConsumer,
        after_s: float,
        interval_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._slots = slots
        self._consumer = consumer
        self._after_s = after_s
        self._interval_s = interval_s
        self._clock = clock
        self._checked_s = clock()
        self._taken = 0
        self._since_s: float | None = None
        self._idle_s = 0.0

    @property
    def idle_s(self) -> float:
        """Seconds, up to the last check, for which messages waited and none was taken."""
        return self._idle_s

    @property
    def is_stalled(self) -> bool:
        """Whether that is longer than `after_s`. Always False if `after_s` is 0."""
        return 0 < self._after_s < self._idle_s

    def check(self, messages: int | None) -> None:
        """Check, given the number of messages in the queue; None if the broker did not respond."""
        now_s = self._clock()
        continues = (
            self._slots.total_taken == self._taken
            and now_s - self._checked_s <= MAX_MISSED_CHECKS * self._interval_s
            and self._since_s is not None
        )
        self._checked_s, self._taken = now_s, self._slots.total_taken
        if not self._is_stalling(messages):
            self._since_s = None
        elif not continues:
            self._since_s = now_s
        self._idle_s = 0.0 if self._since_s is None else now_s - self._since_s

    def _is_stalling(self, messages: int | None) -> bool:
        if messages is None or self._consumer.is_ending:
            return False
        busy = self._slots.busy
        return busy < self._slots.count and (messages > 0 or self._consumer.reserved > busy)
