"""A Celery consumer that accepts scan messages only."""

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
from worker.queue.scan_message import NotAScanMessage, log_dropped, require_scan_message


class ScanConsumer(Consumer):  # type: ignore[misc]
    """A Celery consumer that acknowledges and drops every message that is not a scan message."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect, as Celery does; but end the worker if the queue was declared differently."""
        if is_refused_queue(exc):
            error = queue_differs()
            structlog.get_logger().critical(error.code, sentence=error.sentence)
            worker_state.should_stop = EXIT_CONFIG
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Connection) -> Connection:
        """Return the connection once it is established, retrying sooner than the half minute that Celery
        would wait.
        """
        conn.ensure_connection(  # type: ignore[no-untyped-call]
            callback=worker_state.maybe_shutdown, **RECONNECT
        )
        super().ensure_connected(conn)
        return conn

    def create_task_handler(self, *arguments: Any, **named: Any) -> Callable[[Message], object]:
        """Return the function that is called with each message."""
        take = super().create_task_handler(*arguments, **named)

        def taken(message: Message) -> object:
            try:
                require_scan_message(message)
            except NotAScanMessage as error:
                log_dropped(error)
                message.ack_log_error(  # type: ignore[no-untyped-call]
                    structlog.get_logger(), self.connection_errors
                )
                return None
            return take(message)

        return taken
