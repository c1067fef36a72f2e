"""How things stand: what waits, since when, who worked, what failed; and that it is found by index."""

from __future__ import annotations

import json

import pytest
from made_results import arrival, cells, claimed, registered, result
from sqlalchemy import text

from db import ledger, queue_statistics, registration, results
from db.backoff import Backoff
from db.records import Failure, SpecimenIdentity
from db.states import AttemptOutcome, Priority, ScanState

pytestmark = pytest.mark.services

BROKEN = Failure("store_away", "the object store did not answer")
HOUR_S = 3600.0


def stands(database):
    with database.transaction() as connection:
        return queue_statistics.queue_statistics(connection)


def change(database, statement: str, **given):
    with database.transaction() as connection:
        connection.execute(text(statement), given)


def completed(database, scan_id, worker="worker-1"):
    claim = claimed(database, scan_id, worker=worker)
    with database.transaction() as connection:
        results.save_result(connection, claim, result(cells(lymphocyte=1), str(scan_id)), ())


def test_an_empty_ledger_has_every_state_and_priority_at_nought(database):
    found = stands(database)
    assert set(found.scans) == set(ScanState) - {ScanState.COMPLETED}
    assert set(found.scans.values()) == {0}
    assert found.waiting == {priority: queue_statistics.Waiting(0, 0.0) for priority in Priority}


def test_what_waits_is_counted_by_priority_with_the_age_of_the_oldest(database):
    stat, old, young, done, aside = registered(
        database, arrival(priority=Priority.STAT), *(arrival() for _ in range(4))
    )
    registered(database, arrival(patient=None))
    completed(database, done)
    claim = claimed(database, aside)
    with database.transaction() as connection:
        ledger.quarantine(connection, claim, BROKEN)
        ledger.mark_queued(connection, [old])
    change(database, "UPDATE scan SET waiting_since = now() - interval '90 s' WHERE id = :id", id=old)
    change(database, "UPDATE scan SET waiting_since = now() - interval '1 day' WHERE id = :id", id=aside)
    found = stands(database)
    assert found.scans == {
        ScanState.RECEIVED: 2,
        ScanState.QUEUED: 1,
        ScanState.RUNNING: 0,
        ScanState.RETRYABLE: 0,
        ScanState.UNASSIGNED: 1,
        ScanState.QUARANTINED: 1,
    }
    assert found.waiting[Priority.STAT].scans == 1
    assert 0 <= found.waiting[Priority.STAT].oldest_s < 60
    assert found.waiting[Priority.ROUTINE].scans == 2
    assert 90 <= found.waiting[Priority.ROUTINE].oldest_s < 150
    assert {stat, young} <= {scan.scan_id for scan in due(database)}


def due(database):
    with database.transaction() as connection:
        return ledger.due_for_enqueue(connection, resend_after_s=HOUR_S)


def test_a_message_sent_again_and_a_retry_do_not_end_the_wait(database):
    (scan_id,) = registered(database, arrival())
    change(database, "UPDATE scan SET waiting_since = now() - interval '500 s'")
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan_id])
        ledger.mark_queued(connection, [scan_id])
    assert stands(database).waiting[Priority.ROUTINE].oldest_s > 499
    claim = claimed(database, scan_id)
    assert claim.waited_s > 499
    assert stands(database).waiting[Priority.ROUTINE].scans == 0
    with database.transaction() as connection:
        ledger.release_for_retry(connection, claim, BROKEN, delay_s=60)
    assert stands(database).waiting[Priority.ROUTINE].oldest_s > 499


def test_what_a_person_assigns_or_requeues_waits_from_then_on(database):
    nameless = registered_nameless(database)
    (done,) = registered(database, arrival())
    completed(database, done)
    change(
        database,
        "UPDATE scan SET waiting_since = now() - interval '1 day', received_at = now() - interval '1 day'",
    )
    with database.transaction() as connection:
        registration.assign(connection, nameless, SpecimenIdentity("P2", "S2"))
        registration.requeue(connection, done)
    waiting = stands(database).waiting[Priority.ROUTINE]
    assert waiting.scans == 2
    assert waiting.oldest_s < 60


def registered_nameless(database):
    (scan_id,) = registered(database, arrival(patient=None))
    return scan_id


def test_workers_are_seen_by_what_they_hold_and_what_they_did(database):
    one, other, third, lost = registered(database, *(arrival() for _ in range(4)))
    completed(database, one, "worker-a")
    failed = claimed(database, other, worker="worker-a")
    with database.transaction() as connection:
        ledger.release_for_retry(connection, failed, BROKEN, delay_s=60)
    claimed(database, third, worker="worker-b")
    claimed(database, lost, worker="worker-c")
    change(database, "UPDATE scan SET lease_expires_at = now() - interval '1 s' WHERE id = :id", id=lost)
    change(database, "UPDATE attempt SET started_at = now() - interval '300 s' WHERE worker = 'worker-c'")
    with database.transaction() as connection:
        ledger.expire_leases(connection, backoff=Backoff(1.0))
        seen = {one.worker: one for one in queue_statistics.worker_activity(connection, within_s=HOUR_S)}
    assert {name: (w.running, w.completed, w.failed) for name, w in seen.items()} == {
        "worker-a": (0, 1, 1),
        "worker-b": (1, 0, 0),
        "worker-c": (0, 0, 1),
    }
    assert seen["worker-a"].seen_s < 60
    assert seen["worker-b"].seen_s < 60
    assert seen["worker-c"].seen_s >= 300
    assert seen_within(database, 200) == {"worker-a", "worker-b"}


def seen_within(database, within_s):
    with database.transaction() as connection:
        return {one.worker for one in queue_statistics.worker_activity(connection, within_s=within_s)}


def test_failures_are_counted_by_code(database):
    scans = registered(database, *(arrival() for _ in range(4)))
    for scan_id, code in zip(scans, ("store_away", "store_away", "damaged", ""), strict=True):
        claim = claimed(database, scan_id)
        with database.transaction() as connection:
            if code:
                ledger.release_for_retry(connection, claim, Failure(code, "a reason"), delay_s=60)
            else:
                ledger.hand_back(connection, claim)
    with database.transaction() as connection:
        found = queue_statistics.failures(connection, within_s=HOUR_S)
    assert [(one.code, one.outcome, one.attempts) for one in found] == [
        ("store_away", AttemptOutcome.FAILED, 2),
        ("damaged", AttemptOutcome.FAILED, 1),
        ("handed_back", AttemptOutcome.HANDED_BACK, 1),
    ]
    assert all(0 <= one.last_s < 60 for one in found)


def test_what_waits_is_counted_without_reading_what_is_done(database):
    (scan_id,) = registered(database, arrival())
    completed(database, scan_id)
    columns = (
        "bucket, version, size_bytes, etag, specimen_id, slide_name, state, priority, current_run_id,"
        " received_at, completed_at, content_digest"
    )
    change(
        database,
        f"INSERT INTO scan (object_key, {columns}) SELECT 'copy-' || number, {columns}"
        " FROM scan, generate_series(1, 20000) AS number",
    )
    registered(database, *(arrival() for _ in range(50)))
    change(database, "ANALYZE scan")
    with database.transaction() as connection:
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {queue_statistics._BY_STATE_AND_PRIORITY.text}"
        said = connection.execute(text(statement)).scalar_one()
    plan = (said if isinstance(said, list) else json.loads(said))[0]["Plan"]
    leaves = [node for node in nodes(plan) if "Relation Name" in node or "Index Name" in node]
    assert {node["Index Name"] for node in leaves} == {"ix_scan_state_priority_waiting_since"}
    assert sum(node["Actual Rows"] for node in leaves) == 50


def nodes(plan):
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
