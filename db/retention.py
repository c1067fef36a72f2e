"""Deleting what is older than it has to be kept: whole scans with all that is known of them.

A scan's age counts from the last thing that happened to it. Only scans that have ended are ever taken. Their
objects go first, by the caller, and their rows in the same transaction: a row without its object is found
again by the next run; an object without its row would be registered as a new upload.
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
"""The states in which nobody works on a scan, and nobody is about to."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Which scans are old: those in these states to which nothing happened for so long."""

    age: timedelta
    states: frozenset[ScanState] = ENDED


@dataclass(frozen=True, slots=True)
class Old:
    """What there is of old scans in one state."""

    state: ScanState
    scans: int
    upload_bytes: int
    results: int
    cells: int


@dataclass(frozen=True, slots=True)
class OldScan:
    """A scan that may go, held until the transaction ends."""

    scan_id: UUID
    state: ScanState
    ref: ScanRef
    content_digest: str | None
    artefacts: tuple[tuple[str, str], ...] = field(repr=False)
    """bucket and name of each object of its results that no other scan shares"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch ended; the next one begins behind it."""

    updated_at: datetime
    scan_id: UUID


START = Place(datetime.min.replace(tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some old scans, and where they end; None: there are no more."""

    scans: tuple[OldScan, ...]
    end: Place | None


def old_scans(connection: Connection, limit: Limit) -> list[Old]:
    """Return how much there is to delete, by state."""
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
        .where(_is_old(limit))
        .group_by(Scan.state)
        .order_by(Scan.state)
    )
    return [
        Old(state, scans, int(upload_bytes), int(results), int(cells))
        for state, scans, upload_bytes, results, cells in connection.execute(statement)
    ]


def take_old(connection: Connection, limit: Limit, behind: Place, size: int) -> Batch:
    """Return the next old scans, the oldest first, held against any other change until the transaction ends.

    One that somebody else changes at this moment is left out.
    """
    seen = connection.execute(
        select(Scan.id, Scan.updated_at, Scan.content_digest)
        .where(_is_old(limit), tuple_(Scan.updated_at, Scan.id) > (behind.updated_at, behind.scan_id))
        .order_by(Scan.updated_at, Scan.id)
        .limit(size)
    ).all()
    if not seen:
        return Batch((), None)
    # Contents are locked before rows, as everywhere.
    for digest in sorted({row.content_digest for row in seen if row.content_digest is not None}):
        lock_content(connection, digest)
    return Batch(_held(connection, limit, [row.id for row in seen]), Place(seen[-1].updated_at, seen[-1].id))


def _held(connection: Connection, limit: Limit, scan_ids: Sequence[UUID]) -> tuple[OldScan, ...]:
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
        .where(Scan.id.in_(scan_ids), _is_old(limit))
        .order_by(Scan.updated_at, Scan.id)
        .with_for_update(skip_locked=True)
    ).all()
    artefacts = _own_artefacts(connection, {row.id: row.content_digest for row in rows})
    return tuple(
        OldScan(
            scan_id=row.id,
            state=row.state,
            ref=ScanRef(row.bucket, row.object_key, row.version, row.size_bytes, row.etag),
            content_digest=row.content_digest,
            artefacts=tuple(artefacts.get(row.id, ())),
        )
        for row in rows
    )


def delete_scans(connection: Connection, scans: Sequence[OldScan]) -> None:
    """Delete the rows of these scans, which `take_old` gave in this transaction. Their events stay."""
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


# Each points at the other: one statement, at the end of which both are gone.
_RUNS_AND_SCANS = text("""
WITH gone AS (DELETE FROM run WHERE scan_id = ANY(:ids))
DELETE FROM scan WHERE id = ANY(:ids)
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))


def delete_people(connection: Connection) -> int:
    """Return how many patients were deleted: those of whom no scan is left, and specimens likewise.

    Whoever registers uploads waits meanwhile: else one could be registered for a patient who is just deleted.
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


def unknown_objects(connection: Connection, bucket: str, names: Sequence[str]) -> list[str]:
    """Return those of the objects in the bucket that belong to no result."""
    found = connection.execute(_UNKNOWN, {"bucket": bucket, "names": list(names)}).scalars()
    return list(found)


_UNKNOWN = text("""
SELECT seen.name FROM unnest(:names) AS seen (name)
WHERE NOT EXISTS (SELECT FROM artefact WHERE artefact.object_name = seen.name AND artefact.bucket = :bucket)
""").bindparams(bindparam("names", type_=ARRAY(Text)))


def _is_old(limit: Limit) -> ColumnElement[bool]:
    states = sorted(limit.states & ENDED)
    return and_(Scan.state.in_(states), Scan.updated_at < now() - limit.age)


def _own_artefacts(
    connection: Connection, digests: dict[UUID, str | None]
) -> dict[UUID, list[tuple[str, str]]]:
    """Return the objects of the scans' results, but for scans whose bytes lie under another scan as well.

    Objects are named by content: those of the other scan are the same ones, there or about to be.
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
