"""The one Celery task, and the consumer that feeds it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import structlog
from celery import Celery
from celery.worker import state as worker_state

from pipeline.model.errors import DeploymentError
from worker.exit_codes import EXIT_CONFIG
from worker.queue.scan_consumer import ScanConsumer
from worker.queue.scan_message import TASK_NAME
from worker.queue.slots import Slots


def answering_messages(task: Callable[[UUID], None], slots: Slots) -> Callable[[object], None]:
    """Return what Celery calls. No scan's id: ignored. A wrong deployment stops the whole worker."""

    def guarded(scan_id: object) -> None:
        try:
            known = UUID(str(scan_id))
        except ValueError:
            structlog.get_logger().warning("message_ignored")
            return
        try:
            with slots.taken():
                task(known)
        except DeploymentError:
            worker_state.should_stop = EXIT_CONFIG
            raise

    return guarded


def register_task(app: Celery, task: Callable[[UUID], None], slots: Slots) -> None:
    """Make the application answer scan messages with this task, in these slots."""
    app.task(name=TASK_NAME, acks_late=True)(answering_messages(task, slots))


def run_consumer(app: Celery, slots: Slots, hostname: str) -> int:
    """Return the exit code, after SIGTERM let the running tasks finish."""
    worker = app.Worker(
        pool="threads",
        concurrency=slots.count,
        hostname=hostname,
        consumer_cls=ScanConsumer,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel="WARNING",
    )
    worker.start()
    return int(worker.exitcode or 0)
