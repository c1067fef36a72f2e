"""Acknowledgements that never reach the broker: who consumes has to learn of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from logging import getLogger
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu import Connection
from kombu.message import Message

from db.records import Due
from db.states import Priority
from tests.chaos.proxy import Proxy, Wire
from tests.support.brokers import at_port, settings_by
from tests.support.deployment import Deployment, deployment_on
from worker.queue.celery_app import CeleryQueue, make_app


@pytest.fixture
def deployment(embedded, tmp_path) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def wire(deployment: Deployment) -> Iterator[Proxy]:
    with closing(Proxy(urlsplit(deployment.settings.broker_url.get_secret_value()).port)) as wire:
        yield wire


@pytest.fixture
def app(deployment: Deployment, wire: Proxy) -> Celery:
    """Return the application with two messages in its queue, its broker behind the wire."""
    CeleryQueue(make_app(deployment.settings)).send([Due(uuid.uuid4(), Priority.ROUTINE) for _ in range(2)])
    url = at_port(deployment.settings.broker_url.get_secret_value(), wire.port)
    return make_app(settings_by(url, deployment.settings))


@pytest.fixture
def connection(app: Celery, wire: Proxy) -> Iterator[Connection]:
    connection = app.connection_for_read()
    yield connection
    wire.set(Wire.WHOLE)
    connection.release()


@pytest.fixture
def messages(app: Celery, connection: Connection) -> list[Message]:
    """Return both messages, taken and not acknowledged; as many as the consumer may hold."""
    messages: list[Message] = []
    consumer = connection.Consumer(app.conf.task_queues, on_message=messages.append)
    consumer.qos(prefetch_count=2)
    consumer.consume()
    while len(messages) < 2:
        connection.drain_events(timeout=5)
    return messages


def acknowledge(message: Message, connection: Connection) -> None:
    """Acknowledge as Celery does."""
    message.ack_log_error(getLogger(__name__), connection.connection_errors)


def test_who_consumes_is_told_once_of_acknowledgements_that_fail(messages, connection, wire):
    wire.set(Wire.CUT)
    with pytest.raises(connection.connection_errors):
        acknowledge(messages[0], connection)
    acknowledge(messages[1], connection)  # what Celery still does while it clears up


def test_an_acknowledgement_too_late_for_its_connection_ends_no_other(messages, connection, wire):
    wire.set(Wire.CUT)
    connection.collect()
    acknowledge(messages[0], connection)
    assert not messages[0].acknowledged


def test_what_was_acknowledged_makes_room(messages, connection):
    assert not messages[0].channel.qos.can_consume()
    acknowledge(messages[0], connection)
    assert messages[0].channel.qos.can_consume()
