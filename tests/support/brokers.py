"""Brokers that tests run on: the embedded one, and a RabbitMQ where a variable names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr

from tests.support.deployment import Deployment, deployment_on
from worker.embedded import EmbeddedSet
from worker.queue.celery_app import make_app
from worker.settings import Settings

AMQP_VARIABLE = "LEUKOFLOW_TEST_AMQP_URL"
BROKERS = ("valkey", "rabbitmq")


def broker_url(kind: str, servers: EmbeddedSet) -> str:
    """Return the URL of a broker of the kind; skips the test where there is none."""
    return servers.broker_url if kind == "valkey" else amqp_url()


def amqp_url() -> str:
    """Return the URL of a RabbitMQ; skips the test where nobody gave one."""
    url = os.environ.get(AMQP_VARIABLE)
    if not url:
        pytest.skip(f"{AMQP_VARIABLE} names no RabbitMQ")
    return url


def at_port(url: str, port: int, scheme: str | None = None) -> str:
    """Return the URL with another port of this machine, and another scheme where one is given."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(scheme=scheme or parts.scheme, netloc=f"{login}@127.0.0.1:{port}"))


def settings_by(url: str, settings: Settings) -> Settings:
    """Return the settings with the broker at the URL in the place of theirs."""
    return settings.model_copy(update={"broker_url": SecretStr(url)})


@contextmanager
def house_by(url: str, servers: EmbeddedSet, folder: Path, **overrides: str) -> Iterator[Deployment]:
    """Return a deployment whose messages go by the broker at the URL; nothing of its queue is left there."""
    with ExitStack() as afterwards, deployment_on(servers, folder, broker_url=url, **overrides) as deployment:
        afterwards.callback(remove_queue, deployment.settings)
        yield deployment


def remove_queue(settings: Settings) -> None:
    """Remove from the broker what Celery declared there for the settings' queue."""
    with make_app(settings).connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_delete(settings.queue)
        with suppress(*connection.channel_errors):
            channel.exchange_delete(settings.queue)
