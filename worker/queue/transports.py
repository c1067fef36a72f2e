"""kombu's transports, which look at what comes from the broker before kombu unpacks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import amqp
import structlog
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp, redis, virtual

from worker.queue.scan_message import NoScanMessage, log_dropped, require_envelope

SOCKET_TIMEOUT_S = 30
"""A broker that is silent for so long, asked for an answer, is away."""


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
        log_dropped(error)
        return None
    return name, raw
