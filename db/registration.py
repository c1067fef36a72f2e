"""Registers uploads, each exactly once, and assigns them to patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, Text, bindparam, select, text, update
from sqlalchemy.sql.functions import now

from db.events import EventKind, append, append_many
from db.records import Arrival, Registered, ScanRef, SpecimenIdentity
from db.same_content import flag_same_content, lock_content
from db.states import IllegalTransition, Priority, ScanState, require
from db.tables import DEFAULT_MAX_ATTEMPTS, Patient, Scan, Specimen
from pipeline.model.errors import UsageError

BATCH_ROWS = 5000
UNREADABLE = "the name of the upload does not identify the patient"


_UNREGISTERED = text("""
SELECT seen.place
FROM unnest(:buckets, :keys, :versions) WITH ORDINALITY AS seen (bucket, object_key, version, place)
LEFT JOIN scan USING (bucket, object_key, version)
WHERE scan.id IS NULL
ORDER BY seen.place
""").bindparams(*[bindparam(name, type_=ARRAY(Text)) for name in ("buckets", "keys", "versions")])

# Sorted: two watchers that register the same uploads wait for each other instead of deadlocking.
_PATIENTS = text("""
INSERT INTO patient (external_id)
SELECT DISTINCT seen.patient FROM unnest(:patients) AS seen (patient)
WHERE NOT EXISTS (SELECT FROM patient WHERE patient.external_id = seen.patient)
ORDER BY 1
ON CONFLICT DO NOTHING
""").bindparams(bindparam("patients", type_=ARRAY(Text)))

_SPECIMENS = text("""
INSERT INTO specimen (patient_id, external_id)
SELECT DISTINCT patient.id, seen.specimen
FROM unnest(:patients, :specimens) AS seen (patient, specimen)
JOIN patient ON patient.external_id = seen.patient
WHERE NOT EXISTS (
    SELECT FROM specimen WHERE specimen.patient_id = patient.id AND specimen.external_id = seen.specimen
)
ORDER BY 1, 2
ON CONFLICT DO NOTHING
""").bindparams(*[bindparam(name, type_=ARRAY(Text)) for name in ("patients", "specimens")])

_SCANS = text("""
INSERT INTO scan (bucket, object_key, version, etag, size_bytes, slide_name, state, error_code, reason,
                  priority, max_attempts, specimen_id)
SELECT seen.bucket, seen.object_key, seen.version, seen.etag, seen.size_bytes, seen.slide_name,
       CASE WHEN specimen.id IS NULL THEN 'unassigned' ELSE 'received' END,
       CASE WHEN specimen.id IS NULL THEN 'no_identity' END,
       CASE WHEN specimen.id IS NULL THEN seen.reason END,
       seen.priority, :max_attempts, specimen.id
FROM unnest(:buckets, :keys, :versions, :etags, :sizes, :slides, :reasons, :priorities, :patients, :specimens)
     AS seen (bucket, object_key, version, etag, size_bytes, slide_name, reason, priority, patient, specimen)
LEFT JOIN patient ON patient.external_id = seen.patient
LEFT JOIN specimen ON specimen.patient_id = patient.id AND specimen.external_id = seen.specimen
ORDER BY seen.bucket, seen.object_key, seen.version
ON CONFLICT DO NOTHING
RETURNING id, state, priority
""").bindparams(
    *[
        bindparam(name, type_=ARRAY(Text))
        for name in (
            "buckets",
            "keys",
            "versions",
            "etags",
            "slides",
            "reasons",
            "priorities",
            "patients",
            "specimens",
        )
    ],
    bindparam("sizes", type_=ARRAY(BigInteger)),
)


def unregistered(connection: Connection, seen: Sequence[ScanRef]) -> list[ScanRef]:
    """Return those of `seen` that the ledger does not have, in the order given.

    One statement for BATCH_ROWS uploads.
    """
    fresh: list[ScanRef] = []
    for start in range(0, len(seen), BATCH_ROWS):
        page = seen[start : start + BATCH_ROWS]
        places = connection.execute(
            _UNREGISTERED,
            {
                "buckets": [ref.bucket for ref in page],
                "keys": [ref.object_key for ref in page],
                "versions": [ref.version for ref in page],
            },
        ).scalars()
        fresh.extend(page[place - 1] for place in places)
    return fresh


def register_many(
    connection: Connection, arrivals: Sequence[Arrival], *, max_attempts: int = DEFAULT_MAX_ATTEMPTS
) -> list[Registered]:
    """Register the new uploads and return their rows; known uploads are left unchanged.

    A scan with an identity is `received`; one without is `unassigned`, with a reason.
    """
    registered: list[Registered] = []
    for start in range(0, len(arrivals), BATCH_ROWS):
        registered.extend(_register_batch(connection, arrivals[start : start + BATCH_ROWS], max_attempts))
    return registered


def _register_batch(
    connection: Connection, arrivals: Sequence[Arrival], max_attempts: int
) -> Iterator[Registered]:
    _add_specimens(connection, [arrival.identity for arrival in arrivals if arrival.identity is not None])
    rows = connection.execute(
        _SCANS,
        {
            "max_attempts": max_attempts,
            "buckets": [arrival.ref.bucket for arrival in arrivals],
            "keys": [arrival.ref.object_key for arrival in arrivals],
            "versions": [arrival.ref.version for arrival in arrivals],
            "etags": [arrival.ref.etag for arrival in arrivals],
            "sizes": [arrival.ref.size_bytes for arrival in arrivals],
            "slides": [arrival.slide_name for arrival in arrivals],
            "reasons": [arrival.reason or UNREADABLE for arrival in arrivals],
            "priorities": [arrival.priority.value for arrival in arrivals],
            "patients": [arrival.identity.patient if arrival.identity else None for arrival in arrivals],
            "specimens": [arrival.identity.specimen if arrival.identity else None for arrival in arrivals],
        },
    ).all()
    append_many(connection, EventKind.REGISTERED, [(row.id, {"state": row.state}) for row in rows])
    return (Registered(row.id, ScanState(row.state), Priority(row.priority)) for row in rows)


def _add_specimens(connection: Connection, identities: Sequence[SpecimenIdentity]) -> None:
    if not identities:
        return
    patients = [identity.patient for identity in identities]
    connection.execute(_PATIENTS, {"patients": patients})
    connection.execute(
        _SPECIMENS, {"patients": patients, "specimens": [identity.specimen for identity in identities]}
    )


def assign(connection: Connection, scan_id: UUID, identity: SpecimenIdentity) -> ScanState:
    """Assign the scan to the specimen and return its state.

    An unassigned scan becomes received. Any other scan keeps its state and its results, which corrects a
    mislabelled sample.
    Raises: UsageError, where there is no such scan.
    """
    row = connection.execute(
        select(Scan.state, Scan.content_digest, Scan.specimen_id).where(Scan.id == scan_id)
    ).one_or_none()
    if row is None:
        raise UsageError("there is no such scan", code="unknown_scan", scan_id=str(scan_id))
    if row.content_digest is not None:
        lock_content(connection, row.content_digest)
    _add_specimens(connection, [identity])
    specimen_id = connection.execute(
        select(Specimen.id)
        .join(Patient, Patient.id == Specimen.patient_id)
        .where(Patient.external_id == identity.patient, Specimen.external_id == identity.specimen)
    ).scalar_one()
    state = connection.execute(select(Scan.state).where(Scan.id == scan_id).with_for_update()).scalar_one()
    if state is ScanState.UNASSIGNED:
        require(state, ScanState.RECEIVED)
        state = ScanState.RECEIVED
        connection.execute(
            update(Scan)
            .where(Scan.id == scan_id)
            .values(
                specimen_id=specimen_id,
                state=state,
                error_code=None,
                reason=None,
                updated_at=now(),
                waiting_since=now(),
            )
        )
        append(connection, EventKind.ASSIGNED, scan_id, {"specimen": str(specimen_id)})
        return state
    connection.execute(
        update(Scan).where(Scan.id == scan_id).values(specimen_id=specimen_id, updated_at=now())
    )
    before, after = str(row.specimen_id), str(specimen_id)
    append(connection, EventKind.REASSIGNED, scan_id, {"specimen_before": before, "specimen": after})
    if row.content_digest is not None:
        flag_same_content(connection, row.content_digest)
    return state


def requeue(connection: Connection, scan_id: UUID) -> None:
    """Queue a completed or quarantined scan again, with all its attempts. Its runs are kept.

    Raises: UsageError, where there is no such scan, it is being processed, or it has no patient.
    """
    state = connection.execute(select(Scan.state).where(Scan.id == scan_id).with_for_update()).scalar()
    if state is None:
        raise UsageError("there is no such scan", code="unknown_scan", scan_id=str(scan_id))
    if state is ScanState.UNASSIGNED:
        raise UsageError(
            "this scan has no patient yet; assign it", code="scan_unassigned", scan_id=str(scan_id)
        )
    try:
        require(state, ScanState.RECEIVED, str(scan_id))
    except IllegalTransition as error:
        raise UsageError(
            f"this scan is {state}: it is already being processed",
            code="scan_under_way",
            scan_id=str(scan_id),
        ) from error
    connection.execute(
        update(Scan)
        .where(Scan.id == scan_id)
        .values(
            state=ScanState.RECEIVED,
            error_code=None,
            reason=None,
            attempts=0,
            sends=0,
            not_before=None,
            queued_at=None,
            completed_at=None,
            background=False,
            updated_at=now(),
            waiting_since=now(),
        )
    )
    append(connection, EventKind.REQUEUED, scan_id, {"from": state.value})
