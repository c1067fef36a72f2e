"""What is RabbitMQ's own: its queue, channels and connections, TLS. Skipped where no server is given.

What it shares with the other broker is in test_queue.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from struct import pack
from urllib.parse import urlsplit

import amqp
import pytest
import trustme
from amqp.exceptions import AMQPError

from db.records import Due
from db.states import Priority, ScanState
from pipeline.model.errors import DeploymentError, TransientError
from tests.acceptance.pictures import field_jpeg
from tests.chaos.proxy import Proxy, Wire
from tests.support.brokers import amqp_url, at_port, house_by, remove_queue, settings_by
from tests.support.deployment import Deployment
from tests.support.hostile import HOSTILE_TASKS, NO_ID
from tests.support.tls import tls_in_front_of
from worker.exit_codes import EXIT_CONFIG
from worker.queue.celery_app import CeleryQueue, make_app
from worker.queue.scan_message import MAX_MESSAGE_BYTES, TASK_NAME, NotAScanMessage, require_scan_message
from worker.settings import Settings, load

PORTS = {"amqp": 5672, "amqps": 5671}
CONTENT_TYPE, HEADERS = pack(">H", 1 << 15), pack(">H", 1 << 13)
"""AMQP 0-9-1, 4.2.6.1: flags that say which properties follow."""


def settings_at(url: str, **changed: object) -> Settings:
    """Return settings that name the broker and no other service that is there."""
    return load(
        Settings,
        broker_url=url,
        queue=f"test-{uuid.uuid4().hex}",
        database_url="postgresql+psycopg://nobody@localhost/nothing",
        s3_endpoint="localhost:1",
        s3_access_key="none",
        s3_secret_key="none",
        **changed,
    )


def port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or PORTS[parts.scheme]


@pytest.fixture
def settings() -> Iterator[Settings]:
    settings = settings_at(amqp_url())
    yield settings
    remove_queue(settings)


@pytest.fixture
def queue(settings: Settings) -> CeleryQueue:
    return CeleryQueue(make_app(settings))


@pytest.fixture
def deployment(embedded, tmp_path) -> Iterator[Deployment]:
    with house_by(amqp_url(), embedded, tmp_path, worker_slots="1", resend_after_s="1") as deployment:
        yield deployment


@pytest.fixture
def wire() -> Iterator[Proxy]:
    with closing(Proxy(port_of(amqp_url()))) as wire:
        yield wire


def due(count: int, priority: Priority = Priority.ROUTINE) -> list[Due]:
    return [Due(uuid.uuid4(), priority) for _ in range(count)]


def routine_and_then_stat(queue: CeleryQueue) -> list[Due]:
    scans = [*due(3), *due(2, Priority.STAT)]
    queue.send(scans)
    return scans


def test_a_queue_that_is_missing_holds_nothing(queue):
    assert queue.waiting_messages() == 0
    assert queue.send(due(3)) == 3
    assert queue.waiting_messages() == 3


def test_the_broker_gives_out_stat_before_routine(settings, queue):
    scans = routine_and_then_stat(queue)
    with make_app(settings).connection_for_read() as connection:
        got = [connection.default_channel.basic_get(settings.queue) for _ in scans]
    order = [scans.index(next(scan for scan in scans if str(scan.scan_id) in str(it.body))) for it in got]
    assert order == [3, 4, 0, 1, 2]


def test_messages_and_queue_are_made_to_outlive_a_restart(settings, queue):
    routine_and_then_stat(queue)
    with make_app(settings).connection_for_read() as connection:
        channel = connection.default_channel
        assert channel.basic_get(settings.queue).properties["delivery_mode"] == 2
        with pytest.raises(AMQPError, match="inequivalent arg 'durable'"):
            channel.queue_declare(settings.queue, durable=False)


def test_a_queue_of_others_is_refused_with_what_to_do(settings, queue):
    with make_app(settings).connection_for_write() as connection:
        connection.default_channel.queue_declare(settings.queue, durable=True, auto_delete=False)
    with pytest.raises(DeploymentError, match="LEUKOFLOW_QUEUE") as refused:
        queue.send(due(1))
    assert refused.value.code == "queue_differs"


def test_a_worker_at_a_queue_of_others_ends_with_what_to_do(deployment):
    with make_app(deployment.settings).connection_for_write() as connection:
        connection.default_channel.queue_declare(deployment.settings.queue, durable=True, auto_delete=False)
    assert deployment.start("worker").wait(60) == EXIT_CONFIG
    assert "queue_differs" in deployment.logs()


def test_a_broker_that_is_away_is_away(wire):
    wire.set(Wire.CUT)
    queue = CeleryQueue(make_app(settings_at(at_port(amqp_url(), wire.port))))
    with pytest.raises(TransientError):
        queue.waiting_messages()
    with pytest.raises(TransientError):
        queue.send(due(1))


def test_a_broker_that_falls_silent_holds_nobody_for_ever(wire, settings, monkeypatch):
    monkeypatch.setattr("worker.queue.transports.SOCKET_TIMEOUT_S", 0.5)
    url = at_port(amqp_url(), wire.port)
    queue = CeleryQueue(make_app(settings_by(url, settings)))

    def scans() -> Iterator[Due]:
        yield from due(1)
        wire.set(Wire.SILENT)
        yield from due(1)

    with pytest.raises(TransientError):
        queue.send(scans())


def test_what_is_no_scans_id_is_dropped_and_the_worker_goes_on(deployment, tmp_path):
    app, mark = make_app(deployment.settings), tmp_path / "mark"
    deployment.start("watch")
    worker = deployment.start("worker")
    for send in HOSTILE_TASKS.values():
        send(app, mark)
    app.send_task(TASK_NAME, args=[NO_ID + " " * MAX_MESSAGE_BYTES])
    app.control.broadcast("shutdown")
    with app.connection_for_write() as connection:
        for body, properties in odd_messages():
            producer = connection.Producer(serializer=None)
            producer.publish(body, routing_key=deployment.settings.queue, **properties)
    deployment.drop("P-1/S-1/after.jpg", field_jpeg(41))
    deployment.until_ended(1)
    deployment.until(lambda: CeleryQueue(app).waiting_messages() == 0)
    assert deployment.counts()[ScanState.COMPLETED] == 1
    assert worker.is_running()
    assert not mark.exists()
    assert "DROP TABLE" not in deployment.logs()


def test_a_little_stays_a_little_until_it_is_known_to_be_ours(settings, queue):
    app = make_app(settings)
    HOSTILE_TASKS["a little that becomes a lot"](app, Path())
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        message = channel.message_to_python(channel.basic_get(settings.queue))
    assert len(message.body) < MAX_MESSAGE_BYTES
    with pytest.raises(NotAScanMessage):
        require_scan_message(message)
    assert queue.waiting_messages() == 1


class RawProperties(amqp.Message):
    """A message whose properties are these bytes, which need make no sense."""

    def __init__(self, properties: bytes) -> None:
        super().__init__(b"{}")
        self._raw = properties

    def _serialize_properties(self) -> bytes:
        return self._raw


def deep_headers(depth: int) -> bytes:
    """Return headers in headers."""
    table = pack(">I", 0)
    for _ in range(depth):
        table = pack(">I", len(table) + 3) + b"\x01aF" + table
    return HEADERS + table


UNREADABLE = {
    "deep headers": deep_headers(5_000),
    "a content type that is no text": CONTENT_TYPE + b"\x02\xff\xfe",
    "a time out of range": HEADERS + pack(">I", 11) + b"\x01aT" + b"\x7f" + b"\xff" * 7,
    "a name that is no text": HEADERS + pack(">I", 4) + b"\x02\xff\xfeV",
}


def test_properties_that_cannot_be_read_stop_no_worker(deployment):
    deployment.start("watch")
    worker = deployment.start("worker")
    app = make_app(deployment.settings)
    deployment.drop("P-1/S-1/before.jpg", field_jpeg(40))
    deployment.until_ended(1)
    with app.connection_for_write() as connection:
        for properties in UNREADABLE.values():
            connection.default_channel.basic_publish(
                RawProperties(properties), routing_key=deployment.settings.queue
            )
    deployment.drop("P-1/S-1/after.jpg", field_jpeg(41))
    deployment.until_ended(2)
    deployment.until(lambda: CeleryQueue(app).waiting_messages() == 0)
    assert deployment.counts()[ScanState.COMPLETED] == 2
    assert deployment.logs().count("message_ignored") == len(UNREADABLE)
    assert "Traceback" not in deployment.logs()
    assert worker.is_running()


def odd_messages() -> Iterator[tuple[bytes, dict[str, object]]]:
    """Yield bodies and properties of messages that Celery would not send."""
    ours = {"content_type": "application/json", "content_encoding": "utf-8"}
    headers = {"task": TASK_NAME, "id": NO_ID, "lang": "py"}
    for body in (b"", b"not json", b"[]", b'{"a": 1}', b"\xff\xfe\x00", b"[" * 100_000):
        yield body, {**ours, "headers": headers}
    yield b"{}", {}
    yield b"{}", {"content_type": "application/x-python-serialize", "content_encoding": "binary"}
    for odd in ({"task": 7}, {"eta": "2999-01-01T00:00:00"}, {"compression": "nothing"}, {"retries": "x"}):
        yield b'[["%s"], {}, {}]' % NO_ID.encode(), {**ours, "headers": {**headers, **odd}}


def test_a_queue_that_is_emptied_or_deleted_loses_nothing(deployment):
    deployment.start("watch")
    app = make_app(deployment.settings)
    deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
    deployment.until(lambda: CeleryQueue(app).waiting_messages() == 1)
    with app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge(deployment.settings.queue) >= 1
    worker = deployment.start("worker")
    deployment.until_ended(1)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(deployment.settings.queue)
    deployment.drop("P-1/S-1/b.jpg", field_jpeg(41))
    deployment.until_ended(2)
    assert deployment.counts()[ScanState.COMPLETED] == 2
    assert worker.is_running()


def test_connections_that_are_cut_lose_nothing(embedded, tmp_path, wire):
    url = at_port(amqp_url(), wire.port)
    with house_by(url, embedded, tmp_path, worker_slots="1", resend_after_s="1") as deployment:
        watcher, worker = deployment.start("watch"), deployment.start("worker")
        deployment.drop("P-1/S-1/before.jpg", field_jpeg(40))
        deployment.until_ended(1)
        for number in range(3):
            deployment.drop(f"P-1/S-1/{number}.jpg", field_jpeg(41 + number))
        deployment.until(lambda: deployment.counts()[ScanState.COMPLETED] > 1)
        wire.set(Wire.CUT)
        deployment.drop("P-1/S-1/meanwhile.jpg", field_jpeg(50))
        deployment.until(lambda: "broker_unreachable" in deployment.logs())
        wire.set(Wire.WHOLE)
        deployment.until_ended(5)
        assert deployment.counts()[ScanState.COMPLETED] == 5
        assert {row.attempts for row in deployment.rows()} == {1}
        assert watcher.is_running()
        assert worker.is_running()


def test_tls_is_spoken_with_whom_we_trust_alone(tmp_path):
    ours, others = trustme.CA(), trustme.CA()
    files = {name: tmp_path / name for name in ("ours", "others")}
    for ca, path in zip((ours, others), files.values(), strict=True):
        ca.cert_pem.write_to_path(str(path))
    assert asked_over_tls(ours, "127.0.0.1", files["ours"]) == 0
    for signer, name in ((others, "127.0.0.1"), (ours, "elsewhere.example")):
        with pytest.raises(TransientError):
            asked_over_tls(signer, name, files["ours"])
    with pytest.raises(TransientError):
        asked_over_tls(ours, "127.0.0.1", None)


def asked_over_tls(signer: trustme.CA, name: str, ca_certificates: Path | None) -> int:
    """Return what a missing queue holds, asked where a server shows a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signer.issue_cert(name).configure_cert(context)
    with tls_in_front_of(port_of(amqp_url()), context) as port:
        settings = settings_at(at_port(amqp_url(), port, "amqps"), ca_certificates=ca_certificates)
        return CeleryQueue(make_app(settings)).waiting_messages()
