"""The watcher on a real bucket and ledger: what waits, what is seen once, what is sent when."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from db.states import ScanState
from tests.support.house import House, house_on
from worker.ingest.watcher import Watcher
from worker.observability.watcher_metrics import WatcherMetrics
from worker.queue.celery_app import CeleryQueue, make_app


@pytest.fixture
def house(embedded, tmp_path) -> Iterator[House]:
    with house_on(embedded, tmp_path, settle_s="0") as house:
        yield house


def watcher_of(house: House, **changed) -> Watcher:
    settings = house.settings.model_copy(update=changed)
    queue = CeleryQueue(make_app(settings))
    return Watcher(settings, house.database, house.store, queue, WatcherMetrics())


def waiting(house: House) -> int:
    client = Redis.from_url(house.settings.broker_url.get_secret_value())
    queue = house.settings.queue
    return sum(client.llen(name) for name in client.keys(f"{queue}*"))


def test_what_is_there_is_registered_once(house):
    house.drop("P-1/S-1/a.jpg", b"1")
    watcher = watcher_of(house)
    assert watcher.sweep().registered == 1
    assert watcher.sweep().registered == 0
    assert [row.state for row in house.rows()] == [ScanState.RECEIVED]


def test_an_upload_waits_until_it_has_settled(house):
    watcher = watcher_of(house, settle_s=0.3)
    house.drop("P-1/S-1/a.jpg", b"1")
    assert watcher.sweep().unsettled == 1
    house.drop("P-1/S-1/a.jpg", b"12")
    assert watcher.sweep().unsettled == 1
    house.until(lambda: watcher.sweep().registered == 1)
    (row,) = house.rows()
    assert row.state is ScanState.RECEIVED


def test_other_bytes_under_the_same_key_are_another_scan(house):
    watcher = watcher_of(house)
    for body in (b"1", b"2"):
        house.drop("P-1/S-1/a.jpg", body)
        watcher.sweep()
    assert len(house.rows()) == 2


def test_the_same_bytes_again_are_the_same_scan(house):
    watcher = watcher_of(house)
    for _ in range(2):
        house.drop("P-1/S-1/a.jpg", b"1")
        watcher.sweep()
    assert len(house.rows()) == 1


def test_keys_that_are_prefixes_of_others_are_all_seen(house):
    keys = ["P-1/S-1/a", "P-1/S-1/a.jpg", "P-1/S-1/a.jpg.jpg", "P-10/S-1/a.jpg", "P-1/S-1 /б №.jpg"]
    for key in keys:
        house.drop(key, key.encode())
    assert watcher_of(house).sweep().registered == len(keys)


def test_two_watchers_at_once_register_each_upload_once(house):
    for number in range(60):
        house.drop(f"P-1/S-1/{number}.jpg", str(number).encode())
    registered: list[int] = []
    watchers = [watcher_of(house) for _ in range(2)]
    threads = [threading.Thread(target=lambda w=w: registered.append(w.sweep().registered)) for w in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.rows()) == 60


def test_messages_follow_the_commit_and_are_sent_once(house):
    for number in range(3):
        house.drop(f"P-1/S-1/{number}.jpg", str(number).encode())
    watcher = watcher_of(house)
    watcher.sweep()
    assert watcher.dispatch() == 3
    assert waiting(house) == 3
    assert watcher.dispatch() == 0
    assert {row.state for row in house.rows()} == {ScanState.QUEUED}


def test_a_broker_that_lost_everything_is_told_again(house):
    house.drop("P-1/S-1/a.jpg", b"1")
    watcher = watcher_of(house, resend_after_s=0.1)
    watcher.sweep()
    watcher.dispatch()
    client = Redis.from_url(house.settings.broker_url.get_secret_value())
    client.delete(*client.keys(f"{house.settings.queue}*"))
    assert waiting(house) == 0
    house.until(lambda: watcher.dispatch() == 1)
    assert waiting(house) == 1


def test_a_nameless_upload_is_not_sent(house):
    house.drop("nameless.jpg", b"1")
    watcher = watcher_of(house)
    watcher.sweep()
    assert watcher.dispatch() == 0
    (row,) = house.rows()
    assert row.state is ScanState.UNASSIGNED
    assert row.reason
