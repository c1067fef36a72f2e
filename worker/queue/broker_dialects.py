"""The Celery configuration for each kind of broker. No connection is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from kombu.transport.base import Transport

from db.states import Priority
from worker.broker_schemes import AMQP_SCHEMES, REDIS_SCHEMES
from worker.queue.transports import SOCKET_TIMEOUT_S, AmqpTransport, RedisTransport

VISIBILITY_TIMEOUT_S = 3600
"""Redis delivers an unacknowledged message again after this. The ledger reacts sooner; a second copy finds
its scan claimed or completed, and does nothing."""

RECONNECT = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}
"""Seconds between attempts of a worker to reconnect: the first interval, its increment, its maximum."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How Celery is configured for one kind of broker, so that all kinds behave alike."""

    schemes: frozenset[str]
    """of URLs, without and with TLS"""
    transport: type[Transport]
    """kombu's transport, extended to drop foreign messages"""
    transport_options: Mapping[str, object]
    priorities: Mapping[Priority, int]
    """message priorities that make the broker deliver STAT first"""
    queue_arguments: Mapping[str, object]
    """arguments of the queue declaration; an existing queue with other arguments is an error"""
    comes_back_after_channel_error: bool
    """whether a channel error may be gone on a new channel"""


_REDIS_PRIORITIES = {Priority.STAT: 0, Priority.ROUTINE: 9}

REDIS = Dialect(
    schemes=REDIS_SCHEMES,
    transport=RedisTransport,
    transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "priority_steps": sorted(_REDIS_PRIORITIES.values()),
        "queue_order_strategy": "priority",
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    priorities=_REDIS_PRIORITIES,
    queue_arguments={},
    comes_back_after_channel_error=False,
)
"""Kombu's Redis transport delivers the lowest number first."""

RABBITMQ = Dialect(
    schemes=AMQP_SCHEMES,
    transport=AmqpTransport,
    transport_options={"confirm_publish": True},
    priorities={Priority.STAT: 1, Priority.ROUTINE: 0},
    queue_arguments={"x-queue-type": "classic", "x-max-priority": 1},
    comes_back_after_channel_error=True,
)
"""RabbitMQ delivers the highest number first, in queues declared with priorities (docs/adr/rabbitmq.md). It
closes the channel of a consumer that has not acknowledged a message for `consumer_timeout`."""

DIALECTS = (REDIS, RABBITMQ)


def dialect_of(broker_url: str) -> Dialect:
    """Return the dialect of a broker URL that the settings have validated."""
    scheme = urlsplit(broker_url).scheme
    return next(dialect for dialect in DIALECTS if scheme in dialect.schemes)
