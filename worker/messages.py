"""What a worker takes from the broker: the id of a scan, for our one task. All else is dropped.

Two gates. The first looks at what lies in a Redis list, before kombu unpacks it; the second, for every
broker, at the message that Celery would start a task from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from celery.worker.consumer import Consumer
from kombu.message import Message
from kombu.transport import redis

from pipeline.errors import LeukoflowError
from worker.broker import MAX_MESSAGE_BYTES, TASK_NAME

# What Celery itself puts behind the arguments; each could make a worker send or call something else.
_ERRANDS = ("callbacks", "errbacks", "chain", "chord")


class NoScanMessage(LeukoflowError):
    """A message that is not the id of a scan."""

    def __init__(self, why: str) -> None:
        super().__init__("a message that is not ours was dropped", code="message_ignored")
        self.why = why


def require_envelope(raw: bytes) -> None:
    """Raises: NoScanMessage, where the bytes are not a message as Celery lays it on a Redis list."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise NoScanMessage("too_large")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NoScanMessage("no_json") from error
    if not isinstance(found, dict):
        raise NoScanMessage("no_envelope")
    headers, properties = found.get("headers"), found.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise NoScanMessage("no_envelope")
    if not isinstance(found.get("body"), str) or not isinstance(properties.get("delivery_tag"), str):
        raise NoScanMessage("no_envelope")
    if headers.get("compression"):
        raise NoScanMessage("compressed")  # a little can become a lot


def require_scan_message(message: Message) -> None:
    """Raises: NoScanMessage, where the message is anything but our task with one scan's id."""
    headers = message.headers
    if not isinstance(headers, dict) or headers.get("task") != TASK_NAME:
        raise NoScanMessage("other_task")
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        raise NoScanMessage("no_json")
    try:
        found = json.loads(message.body)
    except (ValueError, TypeError, RecursionError) as error:
        raise NoScanMessage("no_json") from error
    match found:
        case [[str(scan_id)], dict(named), dict(embedded)] if not named:
            _require_uuid(scan_id)
            if any(embedded.get(errand) for errand in _ERRANDS):
                raise NoScanMessage("errand")
        case _:
            raise NoScanMessage("other_arguments")


def _require_uuid(text: str) -> None:
    try:
        UUID(text)
    except ValueError as error:
        raise NoScanMessage("no_scan_id") from error


class ScanConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, which starts tasks from scan messages only and acknowledges away all others."""

    def create_task_handler(self, *arguments: Any, **named: Any) -> Callable[[Message], object]:
        """Return what is called with each message."""
        take = super().create_task_handler(*arguments, **named)

        def taken(message: Message) -> object:
            try:
                require_scan_message(message)
            except NoScanMessage as error:
                _tell(error)
                message.ack_log_error(  # type: ignore[no-untyped-call]
                    structlog.get_logger(), self.connection_errors
                )
                return None
            return take(message)

        return taken


class _Channel(redis.Channel):
    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        client.set_response_callback("BRPOP", _popped)
        return client


class ScanTransport(redis.Transport):
    """kombu's Redis transport, to which what is no message was never there."""

    Channel = _Channel


def _popped(answer: list[bytes] | None, **_options: object) -> tuple[bytes, bytes] | None:
    """Return list and message; None, as if nothing had come, where it is none."""
    if answer is None:
        return None
    name, raw = answer
    try:
        require_envelope(raw)
    except NoScanMessage as error:
        _tell(error)
        return None
    return name, raw


def _tell(error: NoScanMessage) -> None:
    structlog.get_logger().warning(error.code, why=error.why)
