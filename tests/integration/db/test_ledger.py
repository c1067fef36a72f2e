"""The way of a scan through its states, and the claim that only one worker holds."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from made_results import arrival, cells, claimed, registered, result
from sqlalchemy import text

from db import ledger, reads, registration, results
from db.backoff import Backoff
from db.errors import LeaseLost
from db.records import Failure, Progress, ScanFilter
from db.states import Priority, ScanState

AT_ONCE = Backoff(0.0)
pytestmark = pytest.mark.services

BROKEN = Failure("store_away", "the object store did not answer")


def state_of(database, scan_id):
    with database.transaction() as connection:
        (row,) = [row for row in reads.scans(connection, ScanFilter()) if row.scan_id == scan_id]
    return row


def due(database, resend_after_s=3600.0):
    with database.transaction() as connection:
        return [scan.scan_id for scan in ledger.due_for_enqueue(connection, resend_after_s=resend_after_s)]


def later(database, change: str):
    """Let time pass for every scan, by the database's clock."""
    with database.transaction() as connection:
        connection.execute(text(f"UPDATE scan SET {change}"))


def let_lease_end(database):
    later(database, "lease_expires_at = now() - interval '1 second'")


def test_received_is_due_and_queued_is_not(database):
    (scan_id,) = registered(database, arrival())
    assert due(database) == [scan_id]
    with database.transaction() as connection:
        assert [scan.scan_id for scan in ledger.mark_queued(connection, [scan_id])] == [scan_id]
    assert due(database) == []
    assert due(database, resend_after_s=0.0) == [scan_id]


def test_a_lost_message_is_sent_again_after_a_wait_that_doubles(database):
    (scan_id,) = registered(database, arrival())
    for wait_s in (100, 200, 400):
        with database.transaction() as connection:
            ledger.mark_queued(connection, [scan_id])
        later(database, f"queued_at = now() - interval '{wait_s - 1} seconds'")
        assert due(database, resend_after_s=100.0) == []
        later(database, f"queued_at = now() - interval '{wait_s + 1} seconds'")
        assert due(database, resend_after_s=100.0) == [scan_id]


def test_stat_is_sent_before_routine(database):
    routine, stat = registered(database, arrival(), arrival(priority=Priority.STAT))
    assert due(database) == [stat, routine]
    with database.transaction() as connection:
        assert [scan.scan_id for scan in ledger.mark_queued(connection, [routine, stat])] == [stat, routine]


def test_what_waits_for_a_person_is_never_due(database):
    registered(database, arrival(patient=None))
    assert due(database, resend_after_s=0.0) == []


def test_two_reconcilers_share_the_work(database):
    registered(database, *(arrival() for _ in range(4)))
    with database.transaction() as one, database.transaction() as other:
        first = ledger.due_for_enqueue(one, resend_after_s=60.0, limit=3)
        second = ledger.due_for_enqueue(other, resend_after_s=60.0, limit=3)
    assert (len(first), len(second)) == (3, 1)
    assert not set(first) & set(second)


def test_a_claim_has_what_the_work_needs_and_is_on_record_before_it(database, rows):
    upload = arrival(key="k", version="etag-1")
    (scan_id,) = registered(database, upload)
    claim = claimed(database, scan_id, worker="w-7")
    assert (claim.scan_id, claim.ref, claim.attempt_number, claim.attempts) == (scan_id, upload.ref, 1, 1)
    assert "k" not in repr(claim.ref).replace("bucket", "")
    assert rows("SELECT scan_id, number, worker, outcome FROM attempt") == [(scan_id, 1, "w-7", None)]
    row = state_of(database, scan_id)
    assert (row.state, row.claimed_by) == (ScanState.RUNNING, "w-7")


def test_a_scan_is_claimed_once_however_many_try(database):
    (scan_id,) = registered(database, arrival())
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan_id])

    def attempt(number):
        with database.transaction() as connection:
            return ledger.claim(connection, scan_id, worker=f"w{number}", lease_s=60.0)

    with ThreadPoolExecutor(6) as pool:
        claims = [claim for claim in pool.map(attempt, range(12)) if claim]
    assert len(claims) == 1
    assert state_of(database, scan_id).claimed_by == claims[0].worker


def test_only_a_queued_scan_is_claimed(database):
    received, unassigned = registered(database, arrival(), arrival(patient=None))
    with database.transaction() as connection:
        for scan_id in (received, unassigned):
            assert ledger.claim(connection, scan_id, worker="w", lease_s=60.0) is None


def test_a_heartbeat_renews_the_lease_and_shows_progress(database, rows):
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id, lease_s=60.0)
    later(database, "lease_expires_at = now() + interval '1 second'")
    with database.transaction() as connection:
        assert ledger.heartbeat(connection, claim, Progress(3, 9, 14))
    assert state_of(database, scan_id).progress == Progress(3, 9, 14)
    assert rows("SELECT lease_expires_at > now() + interval '50 seconds' FROM scan") == [(True,)]


def test_a_lease_that_ended_is_lost_even_if_nobody_else_took_the_scan(database):
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)
    let_lease_end(database)
    with database.transaction() as connection:
        assert not ledger.heartbeat(connection, claim, Progress(1, 1, 1))
    for act in (
        lambda connection: ledger.release_for_retry(connection, claim, BROKEN, delay_s=0.0),
        lambda connection: ledger.quarantine(connection, claim, BROKEN),
        lambda connection: ledger.hand_back(connection, claim),
        lambda connection: ledger.record_digest(connection, claim, "0" * 64),
        lambda connection: results.save_result(connection, claim, result(cells()), ()),
    ):
        with pytest.raises(LeaseLost), database.transaction() as connection:
            act(connection)
    assert state_of(database, scan_id).state is ScanState.RUNNING


def test_an_expired_lease_gives_the_scan_to_another_and_the_old_token_is_worth_nothing(database, rows):
    (scan_id,) = registered(database, arrival())
    old = claimed(database, scan_id, worker="zombie")
    let_lease_end(database)
    with database.transaction() as connection:
        (expired,) = ledger.expire_leases(connection, backoff=AT_ONCE)
        assert (expired.scan_id, expired.state) == (scan_id, ScanState.RETRYABLE)
        assert ledger.expire_leases(connection, backoff=AT_ONCE) == []
    assert due(database) == [scan_id]
    new = claimed(database, scan_id, worker="heir")
    assert new.attempt_number == 2
    with database.transaction() as connection:
        assert not ledger.heartbeat(connection, old, Progress(1, 1, 1))
        assert ledger.heartbeat(connection, new, Progress(1, 1, 1))
    with pytest.raises(LeaseLost), database.transaction() as connection:
        results.save_result(connection, old, result(cells(lymphocyte=1)), ())
    assert rows("SELECT number, worker, outcome, error_code FROM attempt ORDER BY number") == [
        (1, "zombie", "lost", "lease_expired"),
        (2, "heir", None, None),
    ]


def test_a_live_lease_is_not_expired(database):
    (scan_id,) = registered(database, arrival())
    claimed(database, scan_id)
    with database.transaction() as connection:
        assert ledger.expire_leases(connection, backoff=AT_ONCE) == []
    assert state_of(database, scan_id).state is ScanState.RUNNING


def test_who_was_lost_in_company_is_not_blamed_but_suspected(database):
    poison, neighbour = registered(database, arrival("P-1"), arrival("P-2"))
    for number in range(4):
        for scan_id in (poison, neighbour):
            assert claimed(database, scan_id, worker=f"worker-{number}") is not None
        let_lease_end(database)
        with database.transaction() as connection:
            expired = ledger.expire_leases(connection, backoff=AT_ONCE)
            assert [gone.state for gone in expired] == [ScanState.RETRYABLE] * 2
            assert ledger.is_suspect(connection, poison)
            assert ledger.is_suspect(connection, neighbour)
    assert [state_of(database, scan_id).attempts for scan_id in (poison, neighbour)] == [0, 0]
    alone = claimed(database, neighbour, worker="worker-9")
    with database.transaction() as connection:
        results.save_result(connection, alone, result(cells(lymphocyte=1)), ())
        assert not ledger.is_suspect(connection, neighbour)
    assert state_of(database, neighbour).state is ScanState.COMPLETED


A_DAY_AHEAD = "interval '1 day'"


def set_clock_back(database, *columns: str):
    """Leave the scans as they are when the database's clock was a day ahead until now."""
    later(database, ", ".join(f"{column} = {column} + {A_DAY_AHEAD}" for column in ("updated_at", *columns)))


def test_a_clock_that_is_set_back_keeps_no_message_from_being_sent_again(database):
    (scan_id,) = registered(database, arrival())
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan_id])
    assert due(database) == []
    set_clock_back(database, "queued_at")
    assert due(database) == [scan_id]
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan_id])
    assert due(database) == []


def test_a_clock_that_is_set_back_makes_no_retry_wait(database):
    (scan_id,) = registered(database, arrival())
    held = claimed(database, scan_id)
    with database.transaction() as connection:
        ledger.release_for_retry(connection, held, BROKEN, delay_s=60.0)
    assert due(database) == []
    set_clock_back(database, "not_before")
    assert due(database) == [scan_id]


def test_a_clock_that_is_set_back_makes_no_scan_of_a_dead_worker_wait(database):
    (scan_id,) = registered(database, arrival())
    assert claimed(database, scan_id) is not None
    set_clock_back(database, "lease_expires_at", "heartbeat_at")
    with database.transaction() as connection:
        assert [gone.scan_id for gone in ledger.expire_leases(connection, backoff=AT_ONCE)] == [scan_id]
    assert due(database) == [scan_id]


def test_leases_that_end_one_after_the_other_were_in_company_all_the_same(database):
    scans = registered(database, arrival("P-1"), arrival("P-2"))
    for scan_id in scans:
        assert claimed(database, scan_id) is not None
    for scan_id in scans:
        later(database, f"lease_expires_at = now() - interval '1 second' WHERE id = '{scan_id}'")
        with database.transaction() as connection:
            assert [gone.scan_id for gone in ledger.expire_leases(connection, backoff=AT_ONCE)] == [scan_id]
    assert [state_of(database, scan_id).attempts for scan_id in scans] == [0, 0]


def test_a_neighbour_that_ended_in_time_is_no_company(database):
    lost, ended = registered(database, arrival("P-1"), arrival("P-2"))
    assert claimed(database, lost) is not None
    held = claimed(database, ended)
    with database.transaction() as connection:
        results.save_result(connection, held, result(cells(lymphocyte=1)), ())
    let_lease_end(database)
    with database.transaction() as connection:
        ledger.expire_leases(connection, backoff=AT_ONCE)
    assert state_of(database, lost).attempts == 1


def test_a_scan_that_kills_its_worker_each_time_is_quarantined_and_a_requeue_gives_it_a_new_start(database):
    (scan_id,) = registered(database, arrival())
    states = []
    for _ in range(3):
        assert claimed(database, scan_id) is not None
        let_lease_end(database)
        with database.transaction() as connection:
            states += [gone.state for gone in ledger.expire_leases(connection, backoff=AT_ONCE)]
    assert states == [ScanState.RETRYABLE, ScanState.RETRYABLE, ScanState.QUARANTINED]
    row = state_of(database, scan_id)
    assert (row.error_code, row.attempts) == ("worker_lost", 3)
    assert due(database, resend_after_s=0.0) == []
    with database.transaction() as connection:
        registration.requeue(connection, scan_id)
    row = state_of(database, scan_id)
    assert (row.state, row.attempts, row.reason) == (ScanState.RECEIVED, 0, None)
    assert claimed(database, scan_id).attempt_number == 4


def test_a_retry_waits_for_its_time(database, rows):
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)
    with database.transaction() as connection:
        after = ledger.release_for_retry(connection, claim, BROKEN, delay_s=30.0)
    assert after is ScanState.RETRYABLE
    assert due(database) == []
    later(database, "not_before = now()")
    assert due(database) == [scan_id]
    assert rows("SELECT outcome, error_code, reason FROM attempt") == [
        ("failed", "store_away", "the object store did not answer")
    ]


def test_the_last_retry_is_a_quarantine(database):
    (scan_id,) = registered(database, arrival())
    states = []
    for _ in range(3):
        claim = claimed(database, scan_id)
        with database.transaction() as connection:
            states.append(ledger.release_for_retry(connection, claim, BROKEN, delay_s=0.0))
    assert states == [ScanState.RETRYABLE, ScanState.RETRYABLE, ScanState.QUARANTINED]
    assert state_of(database, scan_id).reason == BROKEN.reason


def test_a_scan_handed_back_is_due_at_once_and_loses_no_attempt(database):
    (scan_id,) = registered(database, arrival())
    for number in (1, 2, 3, 4):
        claim = claimed(database, scan_id)
        assert (claim.attempt_number, claim.attempts) == (number, 1)
        with database.transaction() as connection:
            ledger.hand_back(connection, claim)
        assert due(database) == [scan_id]


def test_a_quarantined_scan_says_why_and_is_listed(database):
    first, _ = registered(database, arrival(), arrival())
    claim = claimed(database, first)
    with database.transaction() as connection:
        ledger.quarantine(connection, claim, Failure("not_an_image", "the file is text"))
        (row,) = reads.scans(connection, ScanFilter(state=ScanState.QUARANTINED))
        counts = reads.counts_by_state(connection)
    assert (row.scan_id, row.error_code, row.reason) == (first, "not_an_image", "the file is text")
    assert counts == dict.fromkeys(ScanState, 0) | {ScanState.QUARANTINED: 1, ScanState.RECEIVED: 1}


def test_a_scan_that_is_done_is_not_queued_or_claimed_again_by_a_late_message(database):
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)
    with database.transaction() as connection:
        results.save_result(connection, claim, result(cells(lymphocyte=1)), ())
    with database.transaction() as connection:
        assert ledger.mark_queued(connection, [scan_id]) == []
        assert ledger.claim(connection, scan_id, worker="w", lease_s=60.0) is None
    assert state_of(database, scan_id).state is ScanState.COMPLETED


def test_every_step_leaves_its_event_and_no_event_names_a_patient(database, rows):
    (scan_id,) = registered(database, arrival("PATIENT-77", "SPECIMEN-88", key="KEY-99"))
    first = claimed(database, scan_id)
    with database.transaction() as connection:
        ledger.release_for_retry(connection, first, BROKEN, delay_s=0.0)
    second = claimed(database, scan_id)
    with database.transaction() as connection:
        results.save_result(connection, second, result(cells(lymphocyte=1)), ())
    events = rows("SELECT kind, detail::text FROM event WHERE scan_id = :scan ORDER BY id", scan=scan_id)
    assert [kind for kind, _ in events] == [
        *("registered", "queued", "claimed", "retry", "queued", "claimed", "completed"),
    ]
    told = " ".join(detail for _, detail in events)
    assert not any(word in told for word in ("PATIENT-77", "SPECIMEN-88", "KEY-99"))


def test_a_step_that_is_rolled_back_leaves_nothing(database, rows):
    (scan_id,) = registered(database, arrival())

    def claim_and_die():
        with database.transaction() as connection:
            ledger.mark_queued(connection, [scan_id])
            assert ledger.claim(connection, scan_id, worker="w", lease_s=60.0) is not None
            raise RuntimeError("the worker died here")

    with pytest.raises(RuntimeError):
        claim_and_die()
    assert state_of(database, scan_id).state is ScanState.RECEIVED
    assert rows("SELECT count(*) FROM attempt") == [(0,)]
