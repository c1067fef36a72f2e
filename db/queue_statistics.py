"""Statistics of the queue: waiting scans, active workers, recent failures. No patient data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, case, func, select, text
from sqlalchemy.sql.functions import now

from db.states import AttemptOutcome, Priority, ScanState
from db.tables import Attempt, Scan

WAITING = (ScanState.RECEIVED, ScanState.QUEUED, ScanState.RETRYABLE)
"""The states of a scan that waits for a worker."""
UNFINISHED: tuple[ScanState, ...] = tuple(state for state in ScanState if state is not ScanState.COMPLETED)

# The condition is the same as in the index, so that an index-only scan answers the query.
_BY_STATE_AND_PRIORITY = text("""
SELECT state, priority, count(*) AS scans,
       extract(epoch FROM clock_timestamp() - min(waiting_since)) AS oldest_s
FROM scan
WHERE state <> 'completed'
GROUP BY state, priority
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Scans of one priority that wait for a worker."""

    scans: int
    oldest_s: float
    """age of the oldest one; 0 if none waits"""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The scans of the ledger that are not completed."""

    scans: Mapping[ScanState, int]
    """by state, all but completed, 0 included"""
    waiting: Mapping[Priority, Waiting]
    """by priority, 0 included"""


@dataclass(frozen=True, slots=True)
class WorkerActivity:
    """The recent work of a worker."""

    worker: str
    running: int
    completed: int
    failed: int
    seen_s: float
    """since its last claim, heartbeat or finished attempt"""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many attempts ended with one error code."""

    code: str
    outcome: AttemptOutcome
    attempts: int
    last_s: float
    """since the last of them ended"""


def ping(connection: Connection) -> bool:
    """Return True if the database answers."""
    answer: int = connection.execute(select(1)).scalar_one()
    return answer == 1


def queue_statistics(connection: Connection) -> QueueStatistics:
    """Return the counts of scans that are not completed, with one statement on a partial index."""
    scans: dict[ScanState, int] = dict.fromkeys(UNFINISHED, 0)
    waiting: dict[Priority, Waiting] = dict.fromkeys(Priority, Waiting(0, 0.0))
    for row in connection.execute(_BY_STATE_AND_PRIORITY):
        state, priority = ScanState(row.state), Priority(row.priority)
        scans[state] += row.scans
        if state in WAITING:
            before = waiting[priority]
            oldest_s = max(before.oldest_s, float(row.oldest_s))
            waiting[priority] = Waiting(before.scans + row.scans, oldest_s)
    return QueueStatistics(scans, waiting)


def worker_activity(connection: Connection, *, within_s: float) -> list[WorkerActivity]:
    """Return the workers that hold a scan or started an attempt in the last `within_s` seconds, latest first.

    The ledger does not know of workers that had nothing to do.
    """
    now_s = func.extract("epoch", func.clock_timestamp())
    # The end of a lost attempt is when the watcher noticed, not when the worker was active.
    last = case(
        (Attempt.outcome == AttemptOutcome.LOST, Attempt.started_at),
        else_=func.coalesce(Attempt.finished_at, Attempt.started_at),
    )
    ended = connection.execute(
        select(
            Attempt.worker,
            func.count().filter(Attempt.outcome == AttemptOutcome.COMPLETED).label("completed"),
            func.count()
            .filter(Attempt.outcome.in_([AttemptOutcome.FAILED, AttemptOutcome.LOST]))
            .label("failed"),
            (now_s - func.extract("epoch", func.max(last))).label("seen_s"),
        )
        .where(Attempt.started_at > now() - timedelta(seconds=within_s))
        .group_by(Attempt.worker)
    )
    seen = {
        row.worker: WorkerActivity(row.worker, 0, row.completed, row.failed, float(row.seen_s))
        for row in ended
    }
    running = connection.execute(
        select(
            Scan.claimed_by.label("worker"),
            func.count().label("running"),
            (now_s - func.extract("epoch", func.max(Scan.heartbeat_at))).label("seen_s"),
        )
        .where(Scan.state == ScanState.RUNNING)
        .group_by(Scan.claimed_by)
    )
    for row in running:
        before = seen.get(row.worker) or WorkerActivity(row.worker, 0, 0, 0, float("inf"))
        seen_s = min(before.seen_s, float(row.seen_s))
        seen[row.worker] = WorkerActivity(row.worker, row.running, before.completed, before.failed, seen_s)
    return sorted(seen.values(), key=lambda one: (one.seen_s, one.worker))


def failures(connection: Connection, *, within_s: float) -> list[FailureCount]:
    """Return the failures of attempts started in the last `within_s` seconds, most frequent first."""
    since_s = func.extract("epoch", func.clock_timestamp() - func.max(Attempt.finished_at)).label("last_s")
    rows = connection.execute(
        select(Attempt.error_code, Attempt.outcome, func.count().label("attempts"), since_s)
        .where(
            Attempt.started_at > now() - timedelta(seconds=within_s),
            Attempt.outcome != AttemptOutcome.COMPLETED,
        )
        .group_by(Attempt.error_code, Attempt.outcome)
    )
    counted = [
        FailureCount(row.error_code or "", row.outcome, row.attempts, float(row.last_s)) for row in rows
    ]
    return sorted(counted, key=lambda one: (-one.attempts, one.code))
