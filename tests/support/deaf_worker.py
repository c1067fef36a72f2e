"""A worker that stops to take messages once it has begun, as one that did not come back to its broker.

`deaf`: its consumer is gone, and process, event loop and connections are well. `hung`: its event loop hangs.
"""

from __future__ import annotations

import sys
import threading

from celery.signals import worker_ready

from worker.observability import logs
from worker.processing.worker_process import run_worker
from worker.settings import Settings, load


def go_deaf(sender: object, **_: object) -> None:
    """Take no more messages, without anybody having asked for it."""
    sender.task_consumer.cancel()  # type: ignore[attr-defined]


def hang(**_: object) -> None:
    """Never come back to the event loop."""
    threading.Event().wait()


if __name__ == "__main__":
    logs.configure("info")
    worker_ready.connect({"deaf": go_deaf, "hung": hang}[sys.argv[1]], weak=False)
    sys.exit(run_worker(load(Settings)))
