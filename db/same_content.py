"""The same bytes under two patients: one of the two samples may be mislabelled, so both are flagged."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from db.events import EventKind, append_many

# The first scan of this content, and the first of another patient than that one's, are all that is needed:
# every scan points at whichever of the two is not its own patient's. Linear in the scans of this content.
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
    """Let no other transaction judge the same content until this one ends; taken before any row is locked."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(content_digest, 0))))


def flag_same_content(connection: Connection, content_digest: str) -> None:
    """Flag every scan of these bytes that lie under more than one patient, and clear flags that ended.

    Each newly flagged scan gets an event. Call `lock_content` first.
    """
    rows = connection.execute(_FLAG, {"digest": content_digest}).all()
    append_many(
        connection,
        EventKind.SAME_CONTENT,
        [(scan_id, {"other_scan": str(twin)}) for scan_id, twin in rows if twin is not None],
    )
