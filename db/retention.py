"""Deletes expired scans with all their data.

The age of a scan counts from its last change. Only scans that have ended are deleted. The caller deletes
their objects first, then their rows in the same transaction: a row without its object is deleted by the next
run; an object without its row would be registered as a new upload.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Text,
    Uuid,
    and_,
    bindparam,
    delete,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.sql.functions import now

from db.events import EventKind, append_many
from db.records import ScanRef
from db.same_content import flag_same_content, lock_content
from db.states import ScanState
from db.tables import ArtefactRow, Attempt, Cell, DifferentialLine, Run, Scan

ENDED = frozenset({ScanState.COMPLETED, ScanState.QUARANTINED, ScanState.UNASSIGNED})
"""The states in which a scan is neither being analysed nor waiting for it."""


@dataclass(frozen=True, slots=True)
class RetentionLimit:
    """Which scans are expired: those in these states that did not change for this long."""

    age: timedelta
    states: frozenset[ScanState] = ENDED


@dataclass(frozen=True, slots=True)
class ExpiredCounts:
    """What the expired scans of one state amount to."""

    state: ScanState
    scans: int
    upload_bytes: int
    results: int
    cells: int


@dataclass(frozen=True, slots=True)
class ExpiredScan:
    """A scan to be deleted, locked until the transaction ends."""

    scan_id: UUID
    state: ScanState
    ref: ScanRef
    content_digest: str | None
    artefacts: tuple[tuple[str, str], ...] = field(repr=False)
    """bucket and name of each object of its results that no other scan shares"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last scan of a batch; the next batch starts after it."""

    updated_at: datetime
    scan_id: UUID


START = Cursor(datetime.min.replace(tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class ExpiredBatch:
    """Some expired scans, and the cursor of the next batch; None if there are no more."""

    scans: tuple[ExpiredScan, ...]
    end: Cursor | None


def expired_counts(connection: Connection, limit: RetentionLimit) -> list[ExpiredCounts]:
    """Return what would be deleted, by state."""
    of_scan = (
        select(Run.scan_id, func.count().label("results"), func.sum(Run.n_found).label("cells"))
        .group_by(Run.scan_id)
        .subquery()
    )
    statement = (
        select(
            Scan.state,
            func.count(),
            func.sum(Scan.size_bytes),
            func.coalesce(func.sum(of_scan.c.results), 0),
            func.coalesce(func.sum(of_scan.c.cells), 0),
        )
        .outerjoin(of_scan, of_scan.c.scan_id == Scan.id)
        .where(_is_expired(limit))
        .group_by(Scan.state)
        .order_by(Scan.state)
    )
    return [
        ExpiredCounts(state, scans, int(upload_bytes), int(results), int(cells))
        for state, scans, upload_bytes, results, cells in connection.execute(statement)
    ]


def lock_expired(connection: Connection, limit: RetentionLimit, after: Cursor, size: int) -> ExpiredBatch:
    """Return the next expired scans, oldest first, locked until the transaction ends.

    Scans that another transaction has locked are left out.
    """
    seen = connection.execute(
        select(Scan.id, Scan.updated_at, Scan.content_digest)
        .where(_is_expired(limit), tuple_(Scan.updated_at, Scan.id) > (after.updated_at, after.scan_id))
        .order_by(Scan.updated_at, Scan.id)
        .limit(size)
    ).all()
    if not seen:
        return ExpiredBatch((), None)
    # Content locks come before row locks, as everywhere.
    for digest in sorted({row.content_digest for row in seen if row.content_digest is not None}):
        lock_content(connection, digest)
    return ExpiredBatch(
        _held(connection, limit, [row.id for row in seen]), Cursor(seen[-1].updated_at, seen[-1].id)
    )


def _held(connection: Connection, limit: RetentionLimit, scan_ids: Sequence[UUID]) -> tuple[ExpiredScan, ...]:
    rows = connection.execute(
        select(
            Scan.id,
            Scan.state,
            Scan.bucket,
            Scan.object_key,
            Scan.version,
            Scan.size_bytes,
            Scan.etag,
            Scan.content_digest,
        )
        .where(Scan.id.in_(scan_ids), _is_expired(limit))
        .order_by(Scan.updated_at, Scan.id)
        .with_for_update(skip_locked=True)
    ).all()
    artefacts = _own_artefacts(connection, {row.id: row.content_digest for row in rows})
    return tuple(
        ExpiredScan(
            scan_id=row.id,
            state=row.state,
            ref=ScanRef(row.bucket, row.object_key, row.version, row.size_bytes, row.etag),
            content_digest=row.content_digest,
            artefacts=tuple(artefacts.get(row.id, ())),
        )
        for row in rows
    )


def delete_scans(connection: Connection, scans: Sequence[ExpiredScan]) -> None:
    """Delete the rows of scans that `lock_expired` returned in this transaction. Their events are kept."""
    ids = [scan.scan_id for scan in scans]
    if not ids:
        return
    runs = select(Run.id).where(Run.scan_id.in_(ids))
    connection.execute(delete(Cell).where(Cell.run_id.in_(runs)))
    connection.execute(delete(DifferentialLine).where(DifferentialLine.run_id.in_(runs)))
    connection.execute(delete(ArtefactRow).where(ArtefactRow.run_id.in_(runs)))
    connection.execute(delete(Attempt).where(Attempt.scan_id.in_(ids)))
    connection.execute(update(Scan).where(Scan.same_content_as.in_(ids)).values(same_content_as=None))
    connection.execute(_RUNS_AND_SCANS, {"ids": ids})
    for digest in sorted({scan.content_digest for scan in scans if scan.content_digest is not None}):
        flag_same_content(connection, digest)
    append_many(
        connection, EventKind.DELETED, [(scan.scan_id, {"state": scan.state.value}) for scan in scans]
    )


# They reference each other: one statement deletes both.
_RUNS_AND_SCANS = text("""
WITH deleted_runs AS (DELETE FROM run WHERE scan_id = ANY(:ids))
DELETE FROM scan WHERE id = ANY(:ids)
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))


def delete_unreferenced_patients(connection: Connection) -> int:
    """Delete patients and specimens without scans; return the number of patients.

    The table lock blocks registration, which could otherwise add a scan to a patient being deleted.
    """
    connection.execute(text("LOCK TABLE patient, specimen IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(
        text("DELETE FROM specimen WHERE NOT EXISTS (SELECT FROM scan WHERE scan.specimen_id = specimen.id)")
    )
    return connection.execute(
        text(
            "DELETE FROM patient"
            " WHERE NOT EXISTS (SELECT FROM specimen WHERE specimen.patient_id = patient.id)"
        )
    ).rowcount


def orphaned_objects(connection: Connection, bucket: str, names: Sequence[str]) -> list[str]:
    """Return which of the objects belong to no result."""
    found = connection.execute(_UNKNOWN, {"bucket": bucket, "names": list(names)}).scalars()
    return list(found)


_UNKNOWN = text("""
SELECT seen.name FROM unnest(:names) AS seen (name)
WHERE NOT EXISTS (SELECT FROM artefact WHERE artefact.object_name = seen.name AND artefact.bucket = :bucket)
""").bindparams(bindparam("names", type_=ARRAY(Text)))


def _is_expired(limit: RetentionLimit) -> ColumnElement[bool]:
    states = sorted(limit.states & ENDED)
    return and_(Scan.state.in_(states), Scan.updated_at < now() - limit.age)


def _own_artefacts(
    connection: Connection, digests: dict[UUID, str | None]
) -> dict[UUID, list[tuple[str, str]]]:
    """Return the objects of the scans' results, except for scans whose bytes another scan shares.

    Objects are named by content, so the other scan has or will have the same ones.
    """
    shared = _digests_elsewhere(connection, digests)
    alone = [scan_id for scan_id, digest in digests.items() if digest not in shared]
    statement = (
        select(Run.scan_id, ArtefactRow.bucket, ArtefactRow.object_name)
        .join(Run, Run.id == ArtefactRow.run_id)
        .where(Run.scan_id.in_(alone))
    )
    objects: dict[UUID, list[tuple[str, str]]] = {}
    for scan_id, bucket, name in connection.execute(statement):
        objects.setdefault(scan_id, []).append((bucket, name))
    return objects


def _digests_elsewhere(connection: Connection, digests: dict[UUID, str | None]) -> Collection[str | None]:
    statement = (
        select(Scan.content_digest)
        .distinct()
        .where(
            Scan.content_digest.in_({digest for digest in digests.values() if digest is not None}),
            Scan.id.not_in(list(digests)),
        )
    )
    return set(connection.execute(statement).scalars()) if digests else ()
