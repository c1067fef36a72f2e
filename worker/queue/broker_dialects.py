"""What Celery has to be told of each kind of broker, beside its URL. No connection is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from kombu.transport.base import Transport

from db.states import Priority
from worker.broker_schemes import AMQP_SCHEMES, REDIS_SCHEMES
from worker.queue.transports import SOCKET_TIMEOUT_S, AmqpTransport, RedisTransport

VISIBILITY_TIMEOUT_S = 3600
"""Redis: an unacknowledged message comes back after this. The ledger answers sooner; a second copy finds its
scan claimed or done, and ends."""

RECONNECT = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}
"""Seconds between tries of a worker to come back to a broker that is away: the first, what is added to each,
the longest."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How Celery speaks to one kind of broker so that it does for us what every other kind does."""

    schemes: frozenset[str]
    """of URLs, without and with TLS"""
    transport: type[Transport]
    """kombu's, with our gate for messages in it"""
    transport_options: Mapping[str, object]
    priorities: Mapping[Priority, int]
    """of messages: the number that makes the broker give out STAT first"""
    queue_arguments: Mapping[str, object]
    """with which the queue is declared; a queue that exists with others is refused"""
    comes_back_after_channel_error: bool
    """whether an error of the channel is one that a new channel may be without"""


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
"""Kombu's Redis transport takes the lowest number first."""

RABBITMQ = Dialect(
    schemes=AMQP_SCHEMES,
    transport=AmqpTransport,
    transport_options={"confirm_publish": True},
    priorities={Priority.STAT: 1, Priority.ROUTINE: 0},
    queue_arguments={"x-queue-type": "classic", "x-max-priority": 1},
    comes_back_after_channel_error=True,
)
"""RabbitMQ takes the highest number first, in queues declared for it (docs/adr/rabbitmq.md). It closes the
channel of a consumer that has not acknowledged a message for `consumer_timeout`."""

DIALECTS = (REDIS, RABBITMQ)


def dialect_of(broker_url: str) -> Dialect:
    """Return how to speak to the broker at a URL that the settings let pass."""
    scheme = urlsplit(broker_url).scheme
    return next(dialect for dialect in DIALECTS if scheme in dialect.schemes)
