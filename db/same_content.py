"""Flags scans of different patients with the same bytes: one of them may be mislabelled."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from db.events import EventKind, append_many

# Two scans suffice: the first with this content, and the first of any other patient. Every scan points at the
# one of them that belongs to another patient. Linear in the number of scans.
_FLAG = text("""
WITH sighting AS (
    SELECT scan.id, scan.same_content_as, specimen.patient_id, scan.received_at
    FROM scan JOIN specimen ON specimen.id = scan.specimen_id
    WHERE scan.content_digest = :digest
), first AS (
    SELECT id, patient_id FROM sighting ORDER BY received_at, id LIMIT 1
), other AS (
    SELECT sighting.id FROM sighting, first
    WHERE sighting.patient_id <> first.patient_id
    ORDER BY sighting.received_at, sighting.id LIMIT 1
), verdict AS (
    SELECT sighting.id,
           CASE WHEN sighting.patient_id = first.patient_id THEN (SELECT id FROM other)
                ELSE first.id
           END AS twin
    FROM sighting, first
)
UPDATE scan SET same_content_as = verdict.twin, updated_at = now()
FROM verdict
WHERE scan.id = verdict.id AND scan.same_content_as IS DISTINCT FROM verdict.twin
RETURNING scan.id, scan.same_content_as
""")


def lock_content(connection: Connection, content_digest: str) -> None:
    """Lock the content against other transactions until this one ends; call it before any row lock."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(content_digest, 0))))


def flag_same_content(connection: Connection, content_digest: str) -> None:
    """Flag the scans with these bytes if they belong to more than one patient; clear outdated flags.

    Each newly flagged scan gets an event. Call `lock_content` first.
    """
    rows = connection.execute(_FLAG, {"digest": content_digest}).all()
    append_many(
        connection,
        EventKind.SAME_CONTENT,
        [(scan_id, {"other_scan": str(twin)}) for scan_id, twin in rows if twin is not None],
    )
