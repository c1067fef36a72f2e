"""What Celery's consumer in this process is about, as Celery itself knows it."""

from __future__ import annotations

import threading

from celery.signals import worker_ready
from celery.worker import state as worker_state


class ConsumerState:
    """Implements `watchdog.Consuming`. One process has one."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        worker_ready.connect(self._on_ready, weak=False)

    def _on_ready(self, **_: object) -> None:
        self._begun.set()

    @property
    def has_begun(self) -> bool:
        """Whether it began to take messages."""
        return self._begun.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether it was told to end, and takes no more."""
        # 0 is an exit code, and so an end.
        flags = (worker_state.should_stop, worker_state.should_terminate)
        return any(flag is not None and flag is not False for flag in flags)

    @property
    def rests(self) -> bool:
        return self.is_ending

    @property
    def reserved(self) -> int:
        return len(worker_state.reserved_requests)

    def ask_to_end(self, exit_code: int) -> None:
        """Have it finish what is running and end the process. It may be too hung to hear it."""
        worker_state.should_stop = exit_code
