"""What may come out of the broker: the id of a scan. Anything else harms nobody and stops nobody."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from db.states import ScanState
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from tests.support.hostile import HOSTILE_TASKS, NO_ID, Sending
from worker.embedded.child_process import Child
from worker.queue.celery_app import make_app
from worker.queue.scan_message import MAX_MESSAGE_BYTES, TASK_NAME


@pytest.fixture(scope="module")
def deployment(embedded, tmp_path_factory) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path_factory.mktemp("deployment"), worker_slots="1") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> Child:
    """Return a worker that has already answered to a message."""
    deployment.start("watch")
    worker = deployment.start("worker")
    deployment.drop("P-0/S-1/first.jpg", field_jpeg(40))
    deployment.until(lambda: deployment.counts()[ScanState.COMPLETED] == 1)
    return worker


@pytest.fixture
def app(deployment: Deployment) -> Iterator[Celery]:
    app = make_app(deployment.settings)
    yield app
    app.close()


def broker_of(deployment: Deployment) -> Redis:
    return Redis.from_url(deployment.settings.broker_url.get_secret_value())


def envelope(body: bytes, content_type: str = "application/json", **headers: object) -> str:
    """Return a message as Celery lays it on the queue."""
    number = str(uuid.uuid4())
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": TASK_NAME, "id": number, "root_id": number, **headers},
            "properties": {
                "correlation_id": number,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "q"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": number,
            },
        }
    )


def raw(message: str | bytes) -> Sending:
    return lambda app, _mark: Redis.from_url(app.conf.broker_url).lpush(app.conf.task_default_queue, message)


HOSTILE = {
    **HOSTILE_TASKS,
    "a pickle that says it is JSON": raw(envelope(b"\x80\x04cos\nsystem\n.")),
    "a deep tree": raw(envelope(b"[" * 100_000 + b"]" * 100_000)),
    "a body that is no JSON": raw(envelope(b"not json")),
    "a body that is no list": raw(envelope(b'{"a": 1}')),
    "a body that is text": raw(envelope(b'"abc"')),
    "a content type that nobody knows": raw(envelope(b"[]", "application/x-python-serialize")),
    "compressed": raw(envelope(b"[]", compression="application/x-nothing")),
    "an envelope without headers": raw('{"body": "e30=", "properties": {"delivery_tag": "1"}}'),
    "an envelope without properties": raw('{"body": "e30="}'),
    "an envelope that is a list": raw("[]"),
    "an envelope that is no JSON": raw("not json"),
    "bytes that are no text": raw(b"\xff\xfe\x00"),
    "a deep envelope": raw("[" * 100_000),
}


def bent_envelopes() -> Iterator[str]:
    """Yield a good message with one of its fields being something else, for each field and each odd value."""
    good = json.loads(envelope(json.dumps([[NO_ID], {}, {}]).encode()))
    # Those of the headers that Celery writes by itself.
    good["headers"] |= {
        "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None, "retries": 0,
        "timelimit": [None, None], "parent_id": None, "argsrepr": "", "kwargsrepr": "", "origin": "o",
        "ignore_result": True, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
    }  # fmt: skip
    parts = [good, good["headers"], good["properties"], good["properties"]["delivery_info"]]
    for part in parts:
        for name, value in list(part.items()):
            for odd in (7, -1.5, "x", "abc", [], ["x"], {}, {"x": [1]}, None, True):
                part[name] = odd
                yield json.dumps(good)
            del part[name]
            yield json.dumps(good)
            part[name] = value


def test_no_field_of_a_message_can_be_bent_to_stop_a_worker(deployment, worker):
    broker = broker_of(deployment)
    for bent in bent_envelopes():
        broker.lpush(deployment.settings.queue, bent)
    done = deployment.counts()[ScanState.COMPLETED]
    deployment.drop("P-1/S-1/bent.jpg", field_jpeg(43))
    deployment.until(lambda: deployment.counts()[ScanState.COMPLETED] == done + 1, deadline_s=100)
    deployment.until(lambda: broker.llen(deployment.settings.queue) == 0, deadline_s=60)
    assert worker.is_running()


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_scans_id_is_ignored_and_the_worker_goes_on(deployment, worker, app, tmp_path, kind):
    mark = tmp_path / "mark"
    HOSTILE[kind](app, mark)
    done = deployment.counts()[ScanState.COMPLETED]
    deployment.drop(f"P-1/S-1/{uuid.uuid4().hex}.jpg", field_jpeg(41))
    deployment.until(lambda: deployment.counts()[ScanState.COMPLETED] == done + 1, deadline_s=60)
    assert worker.is_running()
    assert not mark.exists()
    assert "DROP TABLE" not in deployment.logs()
    broker = broker_of(deployment)
    deployment.until(lambda: broker.llen(deployment.settings.queue) == 0, deadline_s=20)


def test_the_only_task_is_ours(deployment):
    assert list(make_app(deployment.settings).tasks) == []


def test_a_message_beyond_the_limit_does_not_even_get_into_the_broker(deployment, worker):
    with pytest.raises(RedisError):
        broker_of(deployment).lpush(deployment.settings.queue, "x" * (MAX_MESSAGE_BYTES + 1))
    assert broker_of(deployment).ping()
    assert worker.is_running()


def test_nobody_without_the_password_speaks_to_the_broker(deployment):
    password = deployment.settings.broker_url.get_secret_value().split(":")[2].split("@")[0]
    for wrong in ("", ":wrong@"):
        url = deployment.settings.broker_url.get_secret_value().replace(f":{password}@", wrong)
        with pytest.raises(AuthenticationError):
            Redis.from_url(url).ping()


def test_nobody_stops_a_worker_by_a_message(deployment, worker, app):
    app.control.broadcast("shutdown")
    done = deployment.counts()[ScanState.COMPLETED]
    deployment.drop("P-1/S-1/after.jpg", field_jpeg(42))
    deployment.until(lambda: deployment.counts()[ScanState.COMPLETED] == done + 1, deadline_s=60)
    assert worker.is_running()
