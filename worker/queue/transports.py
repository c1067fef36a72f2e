"""kombu transports that validate messages before kombu unpacks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import amqp
import structlog
from amqp.method_framing import frame_handler
from kombu.transport import pyamqp, redis, virtual

from worker.queue.scan_message import NotAScanMessage, log_dropped, require_envelope

SOCKET_TIMEOUT_S = 30
"""A broker that does not respond for this long counts as unreachable."""


class _RedisMessage(virtual.Message):
    """A message whose failed acknowledgement breaks the connection.

    kombu only logs the failure. The message then stays in the prefetch window for ever; a worker with a full
    window receives nothing more and never notices that its connection is broken.
    """

    def ack_log_error(self, _logger: object, errors: Any, multiple: bool = False) -> None:
        """Raises: the connection error, unless the channel is closed or has raised it before.

        In that case the consumer already knows, and may have a new connection.
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
    """whether an acknowledgement failed"""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        client.set_response_callback("BRPOP", _validated_pop)
        return client


class RedisTransport(redis.Transport):
    """kombu's Redis transport, without foreign messages."""

    Channel = _RedisChannel


class _AmqpChannel(pyamqp.Channel):
    def message_to_python(self, raw_message: Any) -> Any:
        """Return the message with its body still compressed: a small one could expand to a huge one."""
        headers = raw_message.properties.get("application_headers") or {}
        packed = headers.pop("compression", None)
        message = super().message_to_python(raw_message)  # type: ignore[no-untyped-call]
        if packed is not None:
            message.headers["compression"] = packed
        return message


_Frame = tuple[int, int, bytes]
"""type, channel, payload"""
_PROPERTIES = 2
"""AMQP 0-9-1, 4.2.6.1: the type of the frame with the properties of a message. Two bytes after the
12th say which properties are present."""


def _readable_frames(connection: pyamqp.Connection, callback: Callable[..., object]) -> Callable[..., object]:
    """Return amqp's frame handler, with properties that amqp cannot parse removed.

    Otherwise such a message would be redelivered to one worker after the other, and crash each.
    """
    take = frame_handler(connection, callback)

    def taken(frame: _Frame) -> object:
        kind, channel, payload = frame
        if kind != _PROPERTIES:
            return take(frame)
        try:
            amqp.Message().inbound_header(payload)
        except Exception:  # noqa: BLE001 - the bytes are untrusted, and amqp fails on them in many ways
            return take((kind, channel, payload[:12] + b"\0\0"))
        return take(frame)

    return taken


class _AmqpConnection(pyamqp.Connection):
    Channel = _AmqpChannel

    def __init__(self, **options: Any) -> None:
        super().__init__(frame_handler=_readable_frames, **options)

    def connect(self, callback: Callable[..., object] | None = None) -> None:
        """Connect, with SOCKET_TIMEOUT_S for every response; amqp itself has no timeout."""
        super().connect(callback)
        self.transport.sock.settimeout(SOCKET_TIMEOUT_S)


class AmqpTransport(pyamqp.Transport):
    """kombu's AMQP transport, which does not decompress, tolerates bad properties, and has a timeout."""

    Connection = _AmqpConnection


def _validated_pop(answer: list[bytes] | None, **_options: object) -> tuple[bytes, bytes] | None:
    """Return the list and the message; None if it is not a scan message, as if nothing had arrived."""
    if answer is None:
        return None
    name, raw = answer
    try:
        require_envelope(raw)
    except NotAScanMessage as error:
        log_dropped(error)
        return None
    return name, raw
