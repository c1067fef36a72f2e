"""Analysing again what is done, for a new bundle: behind all other work. The runs that are there stay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, DateTime, Select, func, select

from db.events import EventKind, append_many
from db.ledger import move
from db.states import Priority, ScanState
from db.tables import ModelBundle, Run, Scan


@dataclass(frozen=True, slots=True)
class KnownBundle:
    """A model bundle that the ledger knows."""

    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which completed scans: those that arrived since then, and were completed before."""

    since: datetime
    completed_before: datetime
    """so that one that comes out anew is not sent round a second time"""
    except_bundle: str | None = None
    """leaves out those whose current result is by the bundle whose digest begins so"""


def moment_of(connection: Connection) -> datetime:
    """Return the database's time."""
    return connection.execute(select(func.clock_timestamp(type_=DateTime(timezone=True)))).scalar_one()


def known_bundles(connection: Connection) -> list[KnownBundle]:
    """Return the bundles that workers have used, the latest first."""
    statement = select(ModelBundle.digest, ModelBundle.name).order_by(ModelBundle.created_at.desc())
    return [KnownBundle(digest, name) for digest, name in connection.execute(statement)]


def reanalysable(connection: Connection, wanted: Wanted) -> int:
    """Return how many scans are wanted."""
    return connection.execute(select(func.count()).select_from(_scans_of(wanted).subquery())).scalar_one()


def reanalyse(connection: Connection, wanted: Wanted, *, limit: int = 1000) -> list[UUID]:
    """Return the scans that will be analysed again, at most `limit`, the oldest first; none, where all will.

    They are routine scans in the background from now on, whatever they were. Their runs stay, and the current
    one is their result until the new one is there.
    """
    statement = (
        _scans_of(wanted)
        .order_by(Scan.received_at, Scan.id)
        .limit(limit)
        .with_for_update(of=Scan, skip_locked=True)
    )
    rows = connection.execute(statement).all()
    if rows:
        connection.execute(
            move(ScanState.RECEIVED)
            .where(Scan.id.in_([row.id for row in rows]))
            .values(
                background=True,
                priority=Priority.ROUTINE,
                attempts=0,
                sends=0,
                not_before=None,
                queued_at=None,
                completed_at=None,
                error_code=None,
                reason=None,
            )
        )
    append_many(
        connection, EventKind.REANALYSED, [(row.id, {"priority": row.priority.value}) for row in rows]
    )
    return [row.id for row in rows]


def _scans_of(wanted: Wanted) -> Select[UUID, Priority]:
    statement = select(Scan.id, Scan.priority).where(
        Scan.state == ScanState.COMPLETED,
        Scan.received_at >= wanted.since,
        Scan.completed_at < wanted.completed_before,
    )
    if wanted.except_bundle is None:
        return statement
    by_it = Run.bundle_digest.startswith(wanted.except_bundle, autoescape=True)
    return statement.join(Run, Run.id == Scan.current_run_id).where(~by_it)
