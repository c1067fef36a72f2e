"""Celery's consumer, which starts tasks from scan messages only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from kombu.message import Message

from worker.exit_codes import EXIT_CONFIG
from worker.queue.broker_dialects import RECONNECT
from worker.queue.celery_app import is_refused_queue, queue_differs
from worker.queue.scan_message import NoScanMessage, log_dropped, require_scan_message


class ScanConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, which starts tasks from scan messages only and acknowledges away all others."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Do as Celery does, which is to connect anew; but for a queue that stays refused end the worker."""
        if is_refused_queue(exc):
            error = queue_differs()
            structlog.get_logger().critical(error.code, sentence=error.sentence)
            worker_state.should_stop = EXIT_CONFIG
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Connection) -> Connection:
        """Return it connected. Celery would come back up to half a minute after the broker did."""
        conn.ensure_connection(  # type: ignore[no-untyped-call]
            callback=worker_state.maybe_shutdown, **RECONNECT
        )
        super().ensure_connected(conn)
        return conn

    def create_task_handler(self, *arguments: Any, **named: Any) -> Callable[[Message], object]:
        """Return what is called with each message."""
        take = super().create_task_handler(*arguments, **named)

        def taken(message: Message) -> object:
            try:
                require_scan_message(message)
            except NoScanMessage as error:
                log_dropped(error)
                message.ack_log_error(  # type: ignore[no-untyped-call]
                    structlog.get_logger(), self.connection_errors
                )
                return None
            return take(message)

        return taken
