"""The state of Celery's consumer in this process."""

from __future__ import annotations

import threading

from celery.signals import worker_ready
from celery.worker import state as worker_state


class ConsumerState:
    """Implements `watchdog.MessageConsumer`. There is one per process."""

    def __init__(self) -> None:
        self._started = threading.Event()
        worker_ready.connect(self._on_ready, weak=False)

    def _on_ready(self, **_: object) -> None:
        self._started.set()

    @property
    def has_started(self) -> bool:
        """Whether it has started to take messages."""
        return self._started.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether it is shutting down and takes no more messages."""
        # An exit code of 0 counts too.
        flags = (worker_state.should_stop, worker_state.should_terminate)
        return any(flag is not None and flag is not False for flag in flags)

    @property
    def reserved(self) -> int:
        return len(worker_state.reserved_requests)

    def request_shutdown(self, exit_code: int) -> None:
        """Ask it to finish the running tasks and end the process. A hung consumer does not react."""
        worker_state.should_stop = exit_code
