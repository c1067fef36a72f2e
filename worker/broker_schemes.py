"""The URL schemes of the brokers that leukoflow can speak to, without and with TLS."""

from __future__ import annotations

REDIS_SCHEMES = frozenset({"redis", "rediss"})
AMQP_SCHEMES = frozenset({"amqp", "amqps"})
BROKER_SCHEMES = REDIS_SCHEMES | AMQP_SCHEMES
