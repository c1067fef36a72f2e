"""The event log: what happened and when, by the database's clock. Append-only, with internal ids only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, insert

from db.tables import Event

Detail = Mapping[str, str | int | float | bool | Sequence[str] | None]


class EventKind(StrEnum):
    """The kind of an event."""

    REGISTERED = "registered"
    QUEUED = "queued"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    RETRY = "retry"
    HANDED_BACK = "handed_back"
    LEASE_EXPIRED = "lease_expired"
    QUARANTINED = "quarantined"
    ASSIGNED = "assigned"
    REASSIGNED = "reassigned"
    REQUEUED = "requeued"
    REANALYSED = "reanalysed"
    """queued in the background for another analysis"""
    DELETED = "deleted"
    SAME_CONTENT = "same_content_under_another_patient"
    RESULTS_READ = "results_read"


def append(connection: Connection, kind: EventKind, scan_id: UUID | None, detail: Detail) -> None:
    """Write one event. `detail` holds no patient identifier and no object key."""
    append_many(connection, kind, [(scan_id, detail)])


def append_many(
    connection: Connection, kind: EventKind, details: Iterable[tuple[UUID | None, Detail]]
) -> None:
    """Write one event for each pair of scan and detail."""
    rows = [{"scan_id": scan_id, "kind": kind.value, "detail": dict(detail)} for scan_id, detail in details]
    if rows:
        # No RETURNING: a role that may only append cannot read the new id.
        connection.execute(insert(Event).inline(), rows)
