"""What a worker takes first, does with a scan that is gone, what a message may not be; by every broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from db.records import Due
from db.states import Priority, ScanState
from pipeline.model.errors import TransientError
from tests.acceptance.pictures import field_jpeg
from tests.support.brokers import BROKERS, broker_url, house_by, settings_by
from tests.support.deployment import Deployment, deployment_on
from worker.queue.celery_app import CeleryQueue, make_app
from worker.queue.scan_message import TASK_NAME


@pytest.fixture(params=BROKERS)
def deployment(request, embedded, tmp_path) -> Iterator[Deployment]:
    with house_by(broker_url(request.param, embedded), embedded, tmp_path, worker_slots="1") as deployment:
        yield deployment


def test_stat_goes_before_routine(deployment):
    watch = deployment.start("watch")
    for number in range(4):
        deployment.drop(f"P-1/S-1/{number}.jpg", field_jpeg(40 + number))
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 4)
    deployment.drop("P-2/S-1/urgent.jpg", field_jpeg(50), {"priority": "stat"})
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 5)
    deployment.start("worker")
    deployment.until_ended(5)
    ended = sorted(deployment.rows(), key=lambda row: row.completed_at)
    assert ended[0].patient == "P-2"
    assert watch.is_running()


def test_an_object_deleted_after_its_registration_has_its_reason(deployment):
    deployment.start("watch")
    deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 1)
    deployment.store.remove("P-1/S-1/a.jpg")
    deployment.start("worker")
    deployment.until_ended(1)
    (row,) = deployment.rows()
    assert (row.state, row.error_code) == (ScanState.QUARANTINED, "object_deleted")


def test_a_message_tenfold_or_of_no_scan_harms_nobody(deployment):
    deployment.start("watch")
    deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == 1)
    app = make_app(deployment.settings)
    (row,) = deployment.rows()
    for argument in [str(row.scan_id)] * 10 + ["not-an-id", "00000000-0000-0000-0000-000000000000"]:
        app.send_task(TASK_NAME, args=[argument])
    worker = deployment.start("worker")
    deployment.until_ended(1)
    deployment.drop("P-1/S-1/b.jpg", field_jpeg(41))
    deployment.until_ended(2)
    assert deployment.counts()[ScanState.COMPLETED] == 2
    assert {row.attempts for row in deployment.rows()} == {1}
    assert worker.is_running()


def test_a_stopped_worker_finishes_what_it_holds(deployment):
    deployment.start("watch")
    worker = deployment.start("worker")
    deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
    deployment.until(
        lambda: deployment.counts()[ScanState.RUNNING] + deployment.counts()[ScanState.COMPLETED] == 1
    )
    worker.ask_to_stop()
    assert worker.wait(60) == 0
    assert deployment.counts()[ScanState.COMPLETED] == 1


def test_a_spool_that_cannot_be_written_costs_a_scan_no_attempt(embedded, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with deployment_on(embedded, tmp_path, spool_dir=str(blocked / "spool")) as deployment:
        deployment.start("watch")
        worker = deployment.start("worker")
        deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
        deployment.until(lambda: deployment.counts()[ScanState.RETRYABLE] == 1)
        (row,) = deployment.rows()
        assert row.attempts == 0
        assert worker.is_running()


@pytest.mark.parametrize("kind", BROKERS)
def test_a_login_that_the_broker_refuses_is_called_so(kind, embedded, tmp_path):
    with deployment_on(embedded, tmp_path) as deployment:
        parts = urlsplit(broker_url(kind, embedded))
        port = f":{parts.port}" if parts.port else ""
        url = urlunsplit(parts._replace(netloc=f"stranger:wrong@{parts.hostname}{port}"))
        queue = CeleryQueue(make_app(settings_by(url, deployment.settings)))
        with pytest.raises(TransientError, match="LEUKOFLOW_BROKER_URL"):
            queue.waiting_messages()
        with pytest.raises(TransientError, match="LEUKOFLOW_BROKER_URL") as refused:
            queue.send([Due(uuid.uuid4(), Priority.ROUTINE)])
        assert refused.value.code == "broker_refused"
