"""What watcher and worker measure is what happened, and names nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from db.states import Priority, ScanState
from pipeline.model.ports import Stage
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from tests.support.served import Served, serving

PATIENT, SPECIMEN = "Meier-4711", "Probe-0815"
GOOD = {f"{PATIENT}/{SPECIMEN}/{number}.jpg": field_jpeg(40 + number) for number in range(3)}
BAD = {f"{PATIENT}/{SPECIMEN}/broken.png": b"\x89PNG\r\n\x1a\nno", "nameless.jpg": field_jpeg(50)}
LABELS = {"stage", "outcome", "code", "priority", "state", "step", "service", "network", "le", "version"}


@pytest.fixture(scope="module")
def deployment(embedded, tmp_path_factory) -> Iterator[Deployment]:
    with deployment_on(embedded, tmp_path_factory.mktemp("metrics"), settle_s="0") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def watcher(deployment: Deployment) -> Served:
    return serving(deployment, "watch")


@pytest.fixture(scope="module")
def worker(deployment: Deployment, watcher: Served) -> Served:
    """Return a worker that has done all that was dropped."""
    for key, body in (GOOD | BAD).items():
        deployment.drop(key, body, {"priority": "stat"} if key.endswith("/0.jpg") else None)
    deployment.until(lambda: deployment.counts()[ScanState.QUEUED] == len(GOOD) + 1)
    deployment.until(lambda: watcher.metric("scans", state="queued") == len(GOOD) + 1)
    assert watcher.metric("waiting_scans", priority="stat") == 1
    assert watcher.metric("waiting_scans", priority="routine") == len(GOOD)
    assert watcher.metric("oldest_waiting_seconds", priority="stat") > 0
    worker = serving(deployment, "worker")
    deployment.until_ended(len(GOOD | BAD))
    return worker


@pytest.mark.usefixtures("worker")
def test_what_waits_is_told_by_the_watcher(deployment: Deployment, watcher: Served):
    deployment.until(lambda: watcher.metric("waiting_scans", priority="routine") == 0)
    for priority in Priority:
        assert watcher.metric("oldest_waiting_seconds", priority=priority.value) == 0
    assert watcher.metric("scans", state="quarantined") == 1
    assert watcher.metric("scans", state="unassigned") == 1
    assert watcher.metric("scans", state="completed") is None
    assert watcher.metric("scans_registered_total") == len(GOOD | BAD)
    assert watcher.metric("messages_sent_total") >= len(GOOD) + 1
    assert watcher.metric("watcher_step_success_timestamp_seconds", step="sweep") > 1.7e9


def test_claims_are_counted_by_their_end(worker: Served):
    ends = {
        dict(labels)["outcome"]: value
        for (name, labels), value in worker.metrics().items()
        if name == "leukoflow_claims_ended_total"
    }
    assert ends == {
        "completed": len(GOOD),
        "quarantined": 1,
        "retryable": 0,
        "handed_back": 0,
        "lease_lost": 0,
    }
    failures = [labels for name, labels in worker.metrics() if name == "leukoflow_failures_total"]
    assert len(failures) == 1


def test_stages_bytes_and_waits_are_measured_by_scan(worker: Served):
    for stage in (Stage.TILES, Stage.CONCLUDE):
        assert worker.metric("stage_duration_seconds_count", stage=stage.value) == len(GOOD)
    assert worker.metric("stage_duration_seconds_sum", stage="tiles") > 0
    sizes = [len(body) for key, body in (GOOD | BAD).items() if "/" in key]
    assert worker.metric("scan_read_bytes_total") == sum(sizes)
    for priority, scans in (("stat", 1), ("routine", len(GOOD) - 1)):
        assert worker.metric("turnaround_duration_seconds_count", priority=priority) == scans
        assert worker.metric("turnaround_duration_seconds_sum", priority=priority) > worker.metric(
            "wait_duration_seconds_sum", priority="stat"
        ) * (priority == "stat")
    assert worker.metric("wait_duration_seconds_count", priority="routine") == len(GOOD)


def test_the_networks_tell_how_busy_and_how_full_they_were(worker: Served):
    for network in ("segmenter", "classifier"):
        batches = worker.metric("engine_batches_total", network=network)
        items = worker.metric("engine_items_total", network=network)
        assert 0 < batches <= items
        assert items <= batches * worker.metric("engine_batch_capacity_items", network=network)
        assert worker.metric("engine_busy_seconds_total", network=network) > 0
        assert worker.metric("engine_parallel_batches", network=network) >= 1
        assert worker.metric("engine_waiting_items", network=network) == 0


def test_slots_spool_and_release_are_told(deployment: Deployment, worker: Served):
    assert worker.metric("worker_slots") == 2
    assert worker.metric("worker_busy_slots") == 0
    assert worker.metric("analysis_without_progress_seconds") == 0
    assert 0 < worker.metric("spool_free_bytes") < worker.metric("spool_size_bytes")
    assert [name for name, _ in worker.metrics() if name == "leukoflow_build_info"]
    deployment.until(lambda: worker.metric("worker_ready") == 1)
    deployment.until(lambda: worker.metric("service_up", service="store") == 1)


def test_a_lost_lease_is_counted_on_both_sides(deployment: Deployment, watcher: Served, worker: Served):
    before = watcher.metric("leases_expired_total", state="retryable")
    deployment.drop(f"{PATIENT}/{SPECIMEN}/taken.jpg", field_jpeg(60))

    def taken() -> bool:
        with deployment.database.transaction() as connection:
            expire = "UPDATE scan SET lease_expires_at = now() - interval '1 s' WHERE state = 'running'"
            return connection.execute(text(expire)).rowcount == 1

    deployment.until(taken)
    deployment.until(lambda: worker.metric("claims_ended_total", outcome="lease_lost") == 1)
    deployment.until(lambda: watcher.metric("leases_expired_total", state="retryable") == before + 1)
    deployment.until_ended(len(GOOD | BAD) + 1)


def test_every_line_of_an_analysis_says_which_scan_attempt_and_worker_it_is(
    deployment: Deployment, worker: Served
):
    spoken = [event for event in worker.events() if "scan_id" in event]
    assert {"claimed", "completed", "quarantined", "lease_lost"} <= {event["event"] for event in spoken}
    assert {event["scan_id"] for event in spoken} <= {str(row.scan_id) for row in deployment.rows()}
    (name,) = {event["worker"] for event in worker.events() if event["event"] == "worker_ready"}
    taken = [event for event in spoken if event["event"] != "nothing_to_claim"]
    assert all(event["worker"] == name and event["attempt"] >= 1 for event in taken)
    last = [event for event in taken if event["attempt"] == 2]
    assert [event["event"] for event in last] == ["claimed", "completed"]


@pytest.mark.parametrize("process", ["watcher", "worker"])
def test_no_label_names_a_patient_a_scan_or_a_worker(
    process: str, request: pytest.FixtureRequest, deployment: Deployment
):
    request.getfixturevalue("worker")
    served: Served = request.getfixturevalue(process)
    scans = {str(row.scan_id) for row in deployment.rows()}
    _, page = served.ask("/metrics")
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not family.name.startswith("leukoflow_"):
                continue
            assert set(sample.labels) <= LABELS, sample.name
            assert not set(sample.labels.values()) & scans
    for telling in (PATIENT, SPECIMEN, "broken", "nameless", *scans):
        assert telling not in page
