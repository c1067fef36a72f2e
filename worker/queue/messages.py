"""What a worker takes from the broker: the id of a scan, for our one task. All else is dropped.

Two gates. The first looks at what comes from the broker before kombu unpacks it; the second, for every
broker, at the message that Celery would start a task from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from uuid import UUID

import amqp
import structlog
from amqp.method_framing import frame_handler
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from kombu.connection import Connection
from kombu.message import Message
from kombu.transport import pyamqp, redis, virtual
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.model.errors import LeukoflowError
from worker.processing.worker_process import EXIT_CONFIG
from worker.queue.broker_dialects import RECONNECT, SOCKET_TIMEOUT_S
from worker.queue.celery_app import MAX_MESSAGE_BYTES, TASK_NAME, is_refused_queue, queue_differs


class NoScanMessage(LeukoflowError):
    """A message that is not the id of a scan."""

    def __init__(self, part: str) -> None:
        super().__init__("a message that is not ours was dropped", code="message_ignored")
        self.part = part
        """which part of it is not as ours are"""


class _Part(BaseModel):
    # Strict: nothing is taken for what it could be converted to. What we do not name Celery does not read.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class _Headers(_Part):
    """Celery's protocol, version 2, as our watcher uses it: at once, once, and with no further errand."""

    task: Annotated[str, Field(pattern=f"^{re.escape(TASK_NAME)}$")]
    id: str
    lang: str | None = None
    root_id: str | None = None
    parent_id: None = None
    group: None = None
    group_index: None = None
    shadow: None = None
    eta: None = None
    expires: None = None
    timelimit: tuple[None, None] | None = None
    retries: int = Field(default=0, ge=0)
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool = False
    replaced_task_nesting: int = 0
    stamped_headers: None = None
    stamps: Annotated[dict[str, None], Field(max_length=0)] | None = None
    compression: None = None  # a little can become a lot


class _Errands(_Part):
    """What Celery puts behind the arguments; each would make a worker send or call something else."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str


class _Properties(_Part):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int | None = None
    priority: int = 0


class _Envelope(_Part):
    """A message as it lies on a Redis list."""

    body: Base64Bytes
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: _Headers
    properties: _Properties


_NOTHING = Annotated[dict[str, None], Field(max_length=0)]
_BODY = TypeAdapter(tuple[tuple[UUID], _NOTHING, _Errands])
"""Arguments, arguments by name, errands."""


def require_envelope(raw: bytes) -> None:
    """Raises: NoScanMessage, where the bytes are not a message of ours as Celery lays it on a Redis list."""
    if len(raw) > MAX_MESSAGE_BYTES:
        raise NoScanMessage("size")
    try:
        envelope = _Envelope.model_validate_json(raw)
        _BODY.validate_json(envelope.body)
    except ValidationError as error:
        raise NoScanMessage(_part_of(error)) from None


def require_scan_message(message: Message) -> None:
    """Raises: NoScanMessage, where the message is anything but our task with one scan's id."""
    if len(message.body) > MAX_MESSAGE_BYTES:
        raise NoScanMessage("size")
    if (message.content_type, message.content_encoding) != ("application/json", "utf-8"):
        raise NoScanMessage("content")
    try:
        _Headers.model_validate(message.headers, strict=False)
        _BODY.validate_json(message.body)
    except ValidationError as error:
        raise NoScanMessage(_part_of(error)) from None


def _part_of(error: ValidationError) -> str:
    """Return where the first thing is that is wrong. The error itself quotes what it read."""
    place = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
    return str(place[0]) if place else "json"


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
                _tell(error)
                message.ack_log_error(  # type: ignore[no-untyped-call]
                    structlog.get_logger(), self.connection_errors
                )
                return None
            return take(message)

        return taken


class _RedisMessage(virtual.Message):
    """A message that, where its acknowledgement fails, breaks the connection for who consumes.

    kombu only logs it. The message then holds its place among the prefetched for ever; a worker all of whose
    places are held takes no more and, reading nothing, never learns that its connection broke.
    """

    def ack_log_error(self, _logger: object, errors: Any, multiple: bool = False) -> None:
        """Raises: what the broker's being away raises, unless the channel ended or has raised it before.

        Then who consumes knows already, and may have another connection, which is well.
        """
        try:
            self.ack(multiple=multiple)  # type: ignore[no-untyped-call]
        except errors:
            structlog.get_logger().warning("acknowledgement_lost")
            if not (self.channel.closed or self.channel.is_lost):
                self.channel.is_lost = True
                raise


class _RedisChannel(redis.Channel):
    Message = _RedisMessage
    is_lost = False
    """whether an acknowledgement did not get through"""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        client.set_response_callback("BRPOP", _popped)
        return client


class RedisTransport(redis.Transport):
    """kombu's Redis transport, to which what is no message was never there."""

    Channel = _RedisChannel


class _AmqpChannel(pyamqp.Channel):
    def message_to_python(self, raw_message: Any) -> Any:
        """Return the message with its body as it came: kombu would unpack a little that becomes a lot."""
        headers = raw_message.properties.get("application_headers") or {}
        packed = headers.pop("compression", None)
        message = super().message_to_python(raw_message)  # type: ignore[no-untyped-call]
        if packed is not None:
            message.headers["compression"] = packed
        return message


_Frame = tuple[int, int, bytes]
"""type, channel, payload"""
_PROPERTIES = 2
"""AMQP 0-9-1, 4.2.6.1: the type of the frame with a message's properties. From the 13th byte on it
says, in two bytes, which there are."""


def _readable_frames(connection: pyamqp.Connection, callback: Callable[..., object]) -> Callable[..., object]:
    """Return what takes frames, as amqp's own; to it, properties that amqp fails to read were never there.

    Else their message would come back to one worker after the other, and end each.
    """
    take = frame_handler(connection, callback)

    def taken(frame: _Frame) -> object:
        kind, channel, payload = frame
        if kind != _PROPERTIES:
            return take(frame)
        try:
            amqp.Message().inbound_header(payload)
        except Exception:  # noqa: BLE001 - too deep, out of range, no text: whatever a stranger thought of
            return take((kind, channel, payload[:12] + b"\0\0"))
        return take(frame)

    return taken


class _AmqpConnection(pyamqp.Connection):
    Channel = _AmqpChannel

    def __init__(self, **options: Any) -> None:
        super().__init__(frame_handler=_readable_frames, **options)

    def connect(self, callback: Callable[..., object] | None = None) -> None:
        """Connect, and wait for no answer longer than SOCKET_TIMEOUT_S from then on. amqp would for ever."""
        super().connect(callback)
        self.transport.sock.settimeout(SOCKET_TIMEOUT_S)


class AmqpTransport(pyamqp.Transport):
    """kombu's AMQP transport, which unpacks nothing, reads what can be read, and does not wait for ever."""

    Connection = _AmqpConnection


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
    structlog.get_logger().warning(error.code, part=error.part)
