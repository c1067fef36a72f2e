"""The watcher on a real bucket and ledger: what waits, what is seen once, what is sent when."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from db.states import ScanState
from tests.support.deployment import Deployment, deployment_on
from worker.ingest.watcher import Watcher
from worker.observability.watcher_metrics import WatcherMetrics
from worker.queue.celery_app import CeleryQueue, make_app


@pytest.fixture
def deployment(embedded, tmp_path) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path, settle_s="0") as deployment:
        yield deployment


def watcher_of(deployment: Deployment, **changed) -> Watcher:
    settings = deployment.settings.model_copy(update=changed)
    queue = CeleryQueue(make_app(settings))
    return Watcher(settings, deployment.database, deployment.store, queue, WatcherMetrics())


def waiting(deployment: Deployment) -> int:
    client = Redis.from_url(deployment.settings.broker_url.get_secret_value())
    queue = deployment.settings.queue
    return sum(client.llen(name) for name in client.keys(f"{queue}*"))


def test_what_is_there_is_registered_once(deployment):
    deployment.drop("P-1/S-1/a.jpg", b"1")
    watcher = watcher_of(deployment)
    assert watcher.sweep().registered == 1
    assert watcher.sweep().registered == 0
    assert [row.state for row in deployment.rows()] == [ScanState.RECEIVED]


def test_an_upload_waits_until_it_has_settled(deployment):
    watcher = watcher_of(deployment, settle_s=0.3)
    deployment.drop("P-1/S-1/a.jpg", b"1")
    assert watcher.sweep().unsettled == 1
    deployment.drop("P-1/S-1/a.jpg", b"12")
    assert watcher.sweep().unsettled == 1
    deployment.until(lambda: watcher.sweep().registered == 1)
    (row,) = deployment.rows()
    assert row.state is ScanState.RECEIVED


def test_other_bytes_under_the_same_key_are_another_scan(deployment):
    watcher = watcher_of(deployment)
    for body in (b"1", b"2"):
        deployment.drop("P-1/S-1/a.jpg", body)
        watcher.sweep()
    assert len(deployment.rows()) == 2


def test_the_same_bytes_again_are_the_same_scan(deployment):
    watcher = watcher_of(deployment)
    for _ in range(2):
        deployment.drop("P-1/S-1/a.jpg", b"1")
        watcher.sweep()
    assert len(deployment.rows()) == 1


def test_keys_that_are_prefixes_of_others_are_all_seen(deployment):
    keys = ["P-1/S-1/a", "P-1/S-1/a.jpg", "P-1/S-1/a.jpg.jpg", "P-10/S-1/a.jpg", "P-1/S-1 /б №.jpg"]
    for key in keys:
        deployment.drop(key, key.encode())
    assert watcher_of(deployment).sweep().registered == len(keys)


def test_two_watchers_at_once_register_each_upload_once(deployment):
    for number in range(60):
        deployment.drop(f"P-1/S-1/{number}.jpg", str(number).encode())
    registered: list[int] = []
    watchers = [watcher_of(deployment) for _ in range(2)]
    threads = [threading.Thread(target=lambda w=w: registered.append(w.sweep().registered)) for w in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deployment.rows()) == 60


def test_messages_follow_the_commit_and_are_sent_once(deployment):
    for number in range(3):
        deployment.drop(f"P-1/S-1/{number}.jpg", str(number).encode())
    watcher = watcher_of(deployment)
    watcher.sweep()
    assert watcher.dispatch() == 3
    assert waiting(deployment) == 3
    assert watcher.dispatch() == 0
    assert {row.state for row in deployment.rows()} == {ScanState.QUEUED}


def test_a_broker_that_lost_everything_is_told_again(deployment):
    deployment.drop("P-1/S-1/a.jpg", b"1")
    watcher = watcher_of(deployment, resend_after_s=0.1)
    watcher.sweep()
    watcher.dispatch()
    client = Redis.from_url(deployment.settings.broker_url.get_secret_value())
    client.delete(*client.keys(f"{deployment.settings.queue}*"))
    assert waiting(deployment) == 0
    deployment.until(lambda: watcher.dispatch() == 1)
    assert waiting(deployment) == 1


def test_a_nameless_upload_is_not_sent(deployment):
    deployment.drop("nameless.jpg", b"1")
    watcher = watcher_of(deployment)
    watcher.sweep()
    assert watcher.dispatch() == 0
    (row,) = deployment.rows()
    assert row.state is ScanState.UNASSIGNED
    assert row.reason
