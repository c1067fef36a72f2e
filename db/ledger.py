"""The operations of the ledger. Each takes a connection in a transaction that the caller opened and commits.

All times come from the database's clock. Every change of state is one compare-and-set statement whose sources
come from `db.states`, with its event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Update,
    and_,
    case,
    cast,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.functions import now

from db.backoff import AFTER_LOST_LEASE, Backoff
from db.errors import LeaseLost
from db.events import EventKind, append, append_many
from db.records import Claim, Due, Expired, Failure, Progress, ScanRef
from db.same_content import flag_same_content, lock_content
from db.states import AttemptOutcome, Priority, ScanState, sources_of
from db.tables import Attempt, Scan

RESEND_DOUBLINGS = 5
"""How often the wait before a message is sent again doubles: messages may just be in a long queue."""
CLOCK_SLACK_S = 60.0
"""A scan updated further in the future than this was updated before the clock was set back. (Within a
transaction, now is its start.)"""
BACKGROUND_QUEUED = 50
"""Messages of background scans that may be in the broker at once: the work of the time between two sweeps."""
LEASE_EXPIRED = Failure("lease_expired", "the worker stopped responding while it analysed this scan")
HANDED_BACK = Failure("handed_back", "the worker could not continue the analysis; it is repeated")
WORKER_LOST = Failure(
    "worker_lost", "the worker died during each analysis; the file may be too large or damaged"
)


def transition(target: ScanState) -> Update:
    """Return an UPDATE of scans to `target`, from exactly the states that may precede it."""
    return (
        update(Scan).where(Scan.state.in_(sorted(sources_of(target)))).values(state=target, updated_at=now())
    )


def without_claim(statement: Update) -> Update:
    """Return `statement` with the claim ended too."""
    return statement.values(claimed_by=None, claim_token=None, lease_expires_at=None, heartbeat_at=None)


def claim_holds(claim: Claim) -> ColumnElement[bool]:
    """Return the condition that the claim holds. The clock is read after waiting for the row lock."""
    return and_(
        Scan.id == claim.scan_id,
        Scan.state == ScanState.RUNNING,
        Scan.claim_token == claim.token,
        Scan.lease_expires_at > func.clock_timestamp(),
    )


def _clock_was_set_back() -> ColumnElement[bool]:
    """Return the condition that the clock was set back after the last update of the scan.

    Its times are then ignored: a scan queued while the clock was a day ahead would wait for a day.
    """
    return Scan.updated_at > now() + timedelta(seconds=CLOCK_SLACK_S)


def due_for_enqueue(connection: Connection, *, resend_after_s: float, limit: int = 1000) -> list[Due]:
    """Return the scans whose message has to be sent, STAT first, locked until the transaction ends.

    They are the received ones, the retryable ones whose delay is over, the queued ones that nobody claimed
    within `resend_after_s` (doubled with each sending), and those updated before the clock was set back.
    With 0 every queued scan is sent again, for a broker that lost its messages. Call `mark_queued` with them,
    commit, then send.

    Background scans are due only when nothing else waits, and only a few at a time: the broker delivers in
    order, and later scans should not wait behind them.
    """
    is_queued = Scan.state == ScanState.QUEUED
    due = _due(connection, Scan.background.is_(False) | is_queued, resend_after_s, limit)
    if due:
        return due
    room = min(limit, _free_background_slots(connection))
    return _due(connection, and_(Scan.background, ~is_queued), resend_after_s, room)


def _free_background_slots(connection: Connection) -> int:
    """Return how many more background scans may be queued now."""
    counts = select(
        func.count().filter(Scan.background), func.count().filter(Scan.background.is_(False))
    ).where(Scan.state == ScanState.QUEUED)
    in_background, others = connection.execute(counts).one()
    return 0 if others else max(0, BACKGROUND_QUEUED - in_background)


def _due(connection: Connection, wanted: ColumnElement[bool], resend_after_s: float, limit: int) -> list[Due]:
    doublings = func.least(func.greatest(Scan.sends - 1, 0), RESEND_DOUBLINGS)
    resend_delay = timedelta(seconds=resend_after_s) * func.power(2, doublings)
    waiting = (
        (Scan.state == ScanState.RECEIVED)
        | and_(Scan.state == ScanState.QUEUED, Scan.queued_at + resend_delay <= now())
        | and_(Scan.state == ScanState.RETRYABLE, Scan.not_before <= now())
        | _clock_was_set_back()
    )
    statement = (
        select(Scan.id, Scan.priority)
        .where(Scan.state.in_([ScanState.RECEIVED, ScanState.QUEUED, ScanState.RETRYABLE]), waiting, wanted)
        .order_by((Scan.priority == Priority.STAT).desc(), Scan.received_at, Scan.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Due(scan_id, priority) for scan_id, priority in connection.execute(statement)]


def mark_queued(connection: Connection, scan_ids: Sequence[UUID]) -> list[Due]:
    """Mark the scans queued and return them, STAT first; send their messages after the commit."""
    sends = case((Scan.state == ScanState.QUEUED, Scan.sends + 1), else_=1)
    statement = (
        transition(ScanState.QUEUED)
        .where(Scan.id.in_(scan_ids))
        .values(queued_at=now(), not_before=None, sends=sends)
        .returning(Scan.id, Scan.priority, Scan.sends)
    )
    rows = connection.execute(statement).all() if scan_ids else []
    append_many(connection, EventKind.QUEUED, [(row.id, {"sends": row.sends}) for row in rows])
    due = [Due(row.id, row.priority) for row in rows]
    return sorted(due, key=lambda scan: (scan.priority is not Priority.STAT, scan.scan_id))


def claim(connection: Connection, scan_id: UUID, *, worker: str, lease_s: float) -> Claim | None:
    """Return a claim on the scan, or None if it is completed, claimed by another worker, or unknown.

    The attempt is recorded in the same transaction, before any work starts.
    """
    statement = (
        transition(ScanState.RUNNING)
        .where(Scan.id == scan_id)
        .values(
            claimed_by=worker,
            claim_token=func.gen_random_uuid(),
            lease_expires_at=func.clock_timestamp() + timedelta(seconds=lease_s),
            heartbeat_at=func.clock_timestamp(),
            attempts=Scan.attempts + 1,
            claims=Scan.claims + 1,
            tiles_done=0,
            tiles_planned=0,
            cells_found=0,
        )
        .returning(
            Scan.claim_token,
            Scan.claims,
            Scan.attempts,
            Scan.max_attempts,
            Scan.bucket,
            Scan.object_key,
            Scan.version,
            Scan.size_bytes,
            Scan.etag,
            Scan.slide_name,
            Scan.priority,
            func.extract("epoch", func.clock_timestamp() - Scan.waiting_since).label("waited_s"),
        )
    )
    row = connection.execute(statement).one_or_none()
    if row is None or row.claim_token is None:
        return None
    connection.execute(insert(Attempt).values(scan_id=scan_id, number=row.claims, worker=worker))
    append(connection, EventKind.CLAIMED, scan_id, {"attempt": row.claims, "worker": worker})
    return Claim(
        scan_id=scan_id,
        token=row.claim_token,
        worker=worker,
        lease_s=lease_s,
        attempt_number=row.claims,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        ref=ScanRef(row.bucket, row.object_key, row.version, row.size_bytes, row.etag),
        slide_name=row.slide_name,
        priority=row.priority,
        waited_s=float(row.waited_s),
    )


def heartbeat(connection: Connection, claim: Claim, progress: Progress) -> bool:
    """Renew the lease and record the progress; return whether the claim still holds."""
    statement = (
        update(Scan)
        .where(claim_holds(claim))
        .values(
            lease_expires_at=func.clock_timestamp() + timedelta(seconds=claim.lease_s),
            heartbeat_at=func.clock_timestamp(),
            tiles_done=progress.tiles_done,
            tiles_planned=progress.tiles_planned,
            cells_found=progress.cells_found,
            updated_at=now(),
        )
    )
    return connection.execute(statement).rowcount == 1


def record_digest(connection: Connection, claim: Claim, content_digest: str) -> bool:
    """Record the digest; return whether another patient has a scan with the same bytes.

    One of the two may be mislabelled: both are flagged, with an event each.
    Raises: LeaseLost
    """
    lock_content(connection, content_digest)
    statement = update(Scan).where(claim_holds(claim)).values(content_digest=content_digest, updated_at=now())
    if connection.execute(statement).rowcount != 1:
        raise LeaseLost(str(claim.scan_id))
    flag_same_content(connection, content_digest)
    flagged = select(Scan.same_content_as.is_not(None)).where(Scan.id == claim.scan_id)
    return connection.execute(flagged).scalar_one()


def finish_attempt(
    connection: Connection, claim: Claim, outcome: AttemptOutcome, failure: Failure | None
) -> None:
    """Record the outcome of the attempt."""
    connection.execute(
        update(Attempt)
        .where(Attempt.scan_id == claim.scan_id, Attempt.number == claim.attempt_number)
        .values(
            finished_at=func.clock_timestamp(),
            outcome=outcome,
            error_code=failure.code if failure else None,
            reason=failure.reason if failure else None,
        )
    )


def _end(connection: Connection, claim: Claim, statement: Update) -> None:
    if connection.execute(without_claim(statement).where(claim_holds(claim))).rowcount != 1:
        raise LeaseLost(str(claim.scan_id))


def release_for_retry(connection: Connection, claim: Claim, failure: Failure, *, delay_s: float) -> ScanState:
    """Return the new state: retryable after `delay_s`, or quarantined if this was the last attempt.

    Raises: LeaseLost
    """
    if claim.attempts >= claim.max_attempts:
        quarantine(connection, claim, failure)
        return ScanState.QUARANTINED
    statement = transition(ScanState.RETRYABLE).values(
        error_code=failure.code, reason=failure.reason, not_before=now() + timedelta(seconds=delay_s)
    )
    _end(connection, claim, statement)
    finish_attempt(connection, claim, AttemptOutcome.FAILED, failure)
    append(connection, EventKind.RETRY, claim.scan_id, {"code": failure.code, "delay_s": delay_s})
    return ScanState.RETRYABLE


def hand_back(
    connection: Connection, claim: Claim, failure: Failure = HANDED_BACK, *, delay_s: float = 0.0
) -> None:
    """Make the scan retryable after `delay_s`, for a failure that it did not cause; the attempt does not
    count.

    Raises: LeaseLost
    """
    statement = transition(ScanState.RETRYABLE).values(
        error_code=failure.code,
        reason=failure.reason,
        not_before=now() + timedelta(seconds=delay_s),
        attempts=Scan.attempts - 1,
    )
    _end(connection, claim, statement)
    finish_attempt(connection, claim, AttemptOutcome.HANDED_BACK, failure)
    append(
        connection,
        EventKind.HANDED_BACK,
        claim.scan_id,
        {"attempt": claim.attempt_number, "code": failure.code},
    )


def quarantine(connection: Connection, claim: Claim, failure: Failure) -> None:
    """Quarantine the scan, with a reason for the technician.

    Raises: LeaseLost
    """
    statement = transition(ScanState.QUARANTINED).values(error_code=failure.code, reason=failure.reason)
    _end(connection, claim, statement)
    finish_attempt(connection, claim, AttemptOutcome.FAILED, failure)
    append(connection, EventKind.QUARANTINED, claim.scan_id, {"code": failure.code})


def is_suspect(connection: Connection, scan_id: UUID) -> bool:
    """Return whether the worker of the scan's last attempt was lost: the scan may have killed it."""
    last = select(Attempt.outcome).where(Attempt.scan_id == scan_id).order_by(Attempt.number.desc()).limit(1)
    return connection.execute(last).scalar_one_or_none() is AttemptOutcome.LOST


def _others_were_running() -> ColumnElement[bool]:
    """Return the condition that the lost worker was analysing another scan too."""
    other = aliased(Attempt)
    return exists().where(
        other.worker == Scan.claimed_by,
        other.scan_id != Scan.id,
        (other.outcome == AttemptOutcome.LOST) | other.outcome.is_(None),
    )


def expire_leases(
    connection: Connection, *, backoff: Backoff = AFTER_LOST_LEASE, limit: int = 1000
) -> list[Expired]:
    """Return the scans whose lease expired: retryable again, or quarantined after their last attempt.

    If the worker was analysing other scans too, the attempt does not count, because any of them may be the
    cause: see `is_suspect`.
    """
    others_were_running = _others_were_running()
    expired_claims = (
        select(Scan.id, Scan.claims, Scan.attempts - cast(others_were_running, Integer), Scan.max_attempts)
        .where(Scan.state == ScanState.RUNNING, (Scan.lease_expires_at <= now()) | _clock_was_set_back())
        .order_by(Scan.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Scan)
    )
    expired = []
    for scan_id, number, attempts, max_attempts in connection.execute(expired_claims).all():
        exhausted = attempts >= max_attempts
        target = ScanState.QUARANTINED if exhausted else ScanState.RETRYABLE
        failure = WORKER_LOST if exhausted else LEASE_EXPIRED
        statement = without_claim(transition(target)).where(Scan.id == scan_id)
        connection.execute(
            statement.values(
                error_code=failure.code,
                reason=failure.reason,
                not_before=None if exhausted else now() + timedelta(seconds=backoff.delay_s(attempts)),
                attempts=attempts,
            )
        )
        connection.execute(
            update(Attempt)
            .where(Attempt.scan_id == scan_id, Attempt.number == number)
            .values(
                finished_at=now(), outcome=AttemptOutcome.LOST, error_code=failure.code, reason=failure.reason
            )
        )
        append(connection, EventKind.LEASE_EXPIRED, scan_id, {"attempt": number, "state": target.value})
        expired.append(Expired(scan_id, target))
    return expired
