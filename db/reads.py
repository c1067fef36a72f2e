"""Queries for people and programs: the scans of the ledger, and the results of a patient."""

from __future__ import annotations

import re
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Select, String, cast, func, select

from db.cell_rows import cell_of
from db.records import PatientResult, Progress, RunReport, ScanFilter, ScanRow, SlideReport
from db.runs import runs_by_id
from db.states import Priority, ScanState
from db.tables import PATIENT_RUN, Cell, Patient, Run, Scan, Specimen
from pipeline.count import differential
from pipeline.model.domain import Cell as FoundCell
from pipeline.model.errors import UsageError


def scans(connection: Connection, wanted: ScanFilter) -> list[ScanRow]:
    """Return the scans that match, in order of arrival."""
    statement = (
        select(
            Scan.id,
            Patient.external_id.label("patient"),
            Specimen.external_id.label("specimen"),
            Scan.slide_name,
            Scan.state,
            Scan.reason,
            Scan.error_code,
            Scan.priority,
            Scan.attempts,
            Scan.max_attempts,
            Scan.claimed_by,
            Scan.tiles_done,
            Scan.tiles_planned,
            Scan.cells_found,
            Run.status,
            Run.n_leukocytes,
            Scan.same_content_as,
            Scan.received_at,
            Scan.completed_at,
            Scan.updated_at,
        )
        .outerjoin(Specimen, Specimen.id == Scan.specimen_id)
        .outerjoin(Patient, Patient.id == Specimen.patient_id)
        .outerjoin(Run, Run.id == Scan.current_run_id)
        .order_by(Scan.received_at, Scan.id)
        .limit(wanted.limit)
    )
    if wanted.patient is not None:
        statement = statement.where(Patient.external_id == wanted.patient)
    if wanted.state is not None:
        statement = statement.where(Scan.state == wanted.state)
    if wanted.scan_ids:
        statement = statement.where(Scan.id.in_(wanted.scan_ids))
    return [
        ScanRow(
            scan_id=row.id,
            patient=row.patient,
            specimen=row.specimen,
            slide_name=row.slide_name,
            state=row.state,
            reason=row.reason,
            error_code=row.error_code,
            priority=row.priority,
            attempts=row.attempts,
            max_attempts=row.max_attempts,
            claimed_by=row.claimed_by,
            progress=Progress(row.tiles_done, row.tiles_planned, row.cells_found),
            status=row.status,
            n_leukocytes=row.n_leukocytes,
            same_content_as=row.same_content_as,
            received_at=row.received_at,
            completed_at=row.completed_at,
            updated_at=row.updated_at,
        )
        for row in connection.execute(statement)
    ]


def counts_by_state(connection: Connection) -> dict[ScanState, int]:
    """Return the number of scans in every state, 0 included; their sum is what was registered."""
    rows = connection.execute(select(Scan.state, func.count()).group_by(Scan.state))
    counted = {state: count for state, count in rows}  # noqa: C416 - a Row is not a pair to mypy
    return {state: counted.get(state, 0) for state in ScanState}


def total_progress(connection: Connection) -> Progress:
    """Return the total progress of all scans."""
    row = connection.execute(
        select(
            func.coalesce(func.sum(Scan.tiles_done), 0),
            func.coalesce(func.sum(Scan.tiles_planned), 0),
            func.coalesce(func.sum(Scan.cells_found), 0),
        )
    ).one()
    return Progress(int(row[0]), int(row[1]), int(row[2]))


def find_scan(connection: Connection, part: str) -> UUID:
    """Return the one scan whose id begins or ends with `part`.

    Ids begin with the time of arrival: of scans that came together, only the ends differ early.
    Raises: UsageError, where there is none, or more than one.
    """
    if re.fullmatch(r"[0-9a-fA-F-]+", part) is None:
        raise UsageError("a scan's id has hexadecimal digits and hyphens only", code="unknown_scan")
    text, wanted = cast(Scan.id, String), part.lower()
    matches = text.startswith(wanted, autoescape=True) | text.endswith(wanted, autoescape=True)
    found = connection.execute(select(Scan.id).where(matches).limit(2)).scalars().all()
    if len(found) != 1:
        what = "more than one scan has" if found else "no scan has"
        raise UsageError(f"{what} an id that begins or ends with {part}", code="unknown_scan")
    return found[0]


def record_results_read(
    connection: Connection, patient_id: UUID | None, *, reader: str, purpose: str
) -> None:
    """Record in the event log that somebody read the results of a patient (None: an unknown patient).

    `reader` is the name they gave; the database adds the login.
    """
    connection.execute(select(func.record_results_read(patient_id, reader, purpose)))


def results_of_patient(connection: Connection, patient: str) -> PatientResult | None:
    """Return the slides of the patient and their pooled differential; None for an unknown patient number.

    Slides without a result are listed with their state. The current runs that are not rejected are pooled,
    identical files once. For cells see `cells_of_run`. Callers also call `record_results_read`.
    """
    patient_id = connection.execute(select(Patient.id).where(Patient.external_id == patient)).scalar()
    if patient_id is None:
        return None
    rows = connection.execute(_slides_of(patient_id)).all()
    runs = runs_by_id(connection, [row.run_id for row in rows if row.run_id is not None])
    slides = tuple(
        SlideReport(
            scan_id=row.id,
            specimen=row.specimen,
            slide_name=row.slide_name,
            state=row.state,
            reason=row.reason,
            priority=row.priority,
            received_at=row.received_at,
            same_content_as=row.same_content_as,
            run=runs.get(row.run_id),
            pooled=bool(row.pooled),
        )
        for row in rows
    )
    pooled: list[RunReport] = [slide.run for slide in slides if slide.pooled and slide.run is not None]
    return PatientResult(
        patient=patient,
        patient_id=patient_id,
        slides=slides,
        pooled=differential.pooled(run.differential for run in pooled),
        n_slides_pooled=len(pooled),
    )


def _slides_of(
    patient_id: UUID,
) -> Select[UUID, str, str, ScanState, str | None, Priority, datetime, UUID | None, int | None, bool | None]:
    # The condition is inside the subquery, so that the view reads the rows of this patient only.
    counted = (
        select(PATIENT_RUN.c.scan_id, PATIENT_RUN.c.pooled)
        .where(PATIENT_RUN.c.patient_id == patient_id)
        .subquery()
    )
    return (
        select(
            Scan.id,
            Specimen.external_id.label("specimen"),
            Scan.slide_name,
            Scan.state,
            Scan.reason,
            Scan.priority,
            Scan.received_at,
            Scan.same_content_as,
            Scan.current_run_id.label("run_id"),
            counted.c.pooled,
        )
        .join(Specimen, Specimen.id == Scan.specimen_id)
        .outerjoin(counted, counted.c.scan_id == Scan.id)
        .where(Specimen.patient_id == patient_id)
        .order_by(Scan.received_at, Scan.id)
    )


def cells_of_run(connection: Connection, run_id: int) -> tuple[FoundCell, ...]:
    """Return the cells of a run in reading order.

    Probabilities, score and disagreement were stored as float32.
    """
    classes = connection.execute(select(Run.probability_classes).where(Run.id == run_id)).scalar()
    rows = connection.execute(select(Cell.__table__).where(Cell.run_id == run_id).order_by(Cell.ordinal))
    return tuple(cell_of(row, classes or []) for row in rows)
