"""Analyses completed scans again in the background, for a new bundle. Existing runs are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, DateTime, Select, func, select

from db.events import EventKind, append_many
from db.ledger import transition
from db.states import Priority, ScanState
from db.tables import ModelBundle, Run, Scan


@dataclass(frozen=True, slots=True)
class KnownBundle:
    """A model bundle that the ledger knows."""

    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class ReanalysisFilter:
    """Selects completed scans by arrival, completion and bundle."""

    since: datetime
    completed_before: datetime
    """so that scans which complete meanwhile are not selected again"""
    except_bundle: str | None = None
    """leaves out scans whose current result is by the bundle whose digest starts like this"""


def database_time(connection: Connection) -> datetime:
    """Return the database's time."""
    return connection.execute(select(func.clock_timestamp(type_=DateTime(timezone=True)))).scalar_one()


def known_bundles(connection: Connection) -> list[KnownBundle]:
    """Return the bundles that workers have used, the latest first."""
    statement = select(ModelBundle.digest, ModelBundle.name).order_by(ModelBundle.created_at.desc())
    return [KnownBundle(digest, name) for digest, name in connection.execute(statement)]


def count_reanalysable(connection: Connection, selection: ReanalysisFilter) -> int:
    """Return how many scans the filter selects."""
    return connection.execute(select(func.count()).select_from(_scans_of(selection).subquery())).scalar_one()


def reanalyse(connection: Connection, selection: ReanalysisFilter, *, limit: int = 1000) -> list[UUID]:
    """Queue up to `limit` more scans for another analysis, oldest first, and return them; empty once all are
    queued.

    They become routine background scans. The current run stays the result until the new one is saved.
    """
    statement = (
        _scans_of(selection)
        .order_by(Scan.received_at, Scan.id)
        .limit(limit)
        .with_for_update(of=Scan, skip_locked=True)
    )
    rows = connection.execute(statement).all()
    if rows:
        connection.execute(
            transition(ScanState.RECEIVED)
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


def _scans_of(selection: ReanalysisFilter) -> Select[UUID, Priority]:
    statement = select(Scan.id, Scan.priority).where(
        Scan.state == ScanState.COMPLETED,
        Scan.received_at >= selection.since,
        Scan.completed_at < selection.completed_before,
    )
    if selection.except_bundle is None:
        return statement
    by_it = Run.bundle_digest.startswith(selection.except_bundle, autoescape=True)
    return statement.join(Run, Run.id == Scan.current_run_id).where(~by_it)
