"""Registers the Celery task and runs the consumer."""

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


def message_handler(task: Callable[[UUID], None], slots: Slots) -> Callable[[object], None]:
    """Return the handler for messages.

    It ignores anything but a scan id; a DeploymentError stops the worker.
    """

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
    """Register the task with the application, to run in these slots."""
    app.task(name=TASK_NAME, acks_late=True)(message_handler(task, slots))


def run_consumer(app: Celery, slots: Slots, hostname: str) -> int:
    """Run the consumer; return its exit code. On SIGTERM it finishes the running tasks first."""
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
