"""Saves a result in one transaction, once for each RunKey, and only under a valid claim."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from db.cell_rows import CELL_COLUMNS, copy_chunks
from db.errors import LeaseLost
from db.events import EventKind, append
from db.ledger import claim_holds, finish_attempt, transition, without_claim
from db.records import Artefact, Claim, Saved
from db.same_content import flag_same_content, lock_content
from db.states import AttemptOutcome, ScanState
from db.tables import ArtefactRow, Attempt, DifferentialLine, ModelBundle, Run, Scan
from pipeline.model.domain import Cell, Differential, SlideResult
from pipeline.model.taxonomy import LEAVES

RUN_KEY = "uq_run_key"
_COPY_CELLS = f"COPY cell ({', '.join(CELL_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_BUNDLE = text("""
INSERT INTO model_bundle (digest, name, manifest) VALUES (:digest, :name, CAST(:manifest AS jsonb))
ON CONFLICT (digest) DO UPDATE SET manifest = excluded.manifest WHERE model_bundle.manifest IS NULL
""")


def register_bundle(connection: Connection, digest: str, name: str, manifest_json: str) -> None:
    """Record the model bundle with its manifest, JSON text. Repeating it changes nothing."""
    connection.execute(_BUNDLE, {"digest": digest, "name": name, "manifest": manifest_json})


def save_result(
    connection: Connection, claim: Claim, result: SlideResult, artefacts: Sequence[Artefact]
) -> Saved:
    """Save the run, complete the scan and return the run. The caller commits.

    If a run with this RunKey exists, only the scan is completed: saving twice changes nothing.
    Raises: LeaseLost, before anything is written.
    """
    key = result.provenance.run_key
    lock_content(connection, key.scan_digest)
    if connection.execute(select(Scan.id).where(claim_holds(claim)).with_for_update()).one_or_none() is None:
        raise LeaseLost(str(claim.scan_id))
    run_id = _insert_run(connection, claim, result)
    is_new = run_id is not None
    if run_id is None:
        run_id = _existing_run(connection, claim, result)
    else:
        _copy_cells(connection, run_id, result.analysis.cells)
        _insert_differential(connection, run_id, result.analysis.differential)
        _insert_artefacts(connection, run_id, artefacts)
    _complete(connection, claim, result, run_id)
    append(connection, EventKind.COMPLETED, claim.scan_id, {"run": run_id, "new": is_new})
    flag_same_content(connection, key.scan_digest)
    return Saved(run_id, is_new)


def _complete(connection: Connection, claim: Claim, result: SlideResult, run_id: int) -> None:
    tiles, differential = result.analysis.tiles, result.analysis.differential
    completed = without_claim(transition(ScanState.COMPLETED)).where(Scan.id == claim.scan_id)
    connection.execute(
        completed.values(
            current_run_id=run_id,
            content_digest=result.provenance.run_key.scan_digest,
            completed_at=func.clock_timestamp(),
            error_code=None,
            reason=None,
            tiles_done=tiles.empty + tiles.analysed,
            tiles_planned=tiles.planned,
            cells_found=differential.n_found,
        )
    )
    finish_attempt(connection, claim, AttemptOutcome.COMPLETED, None)


def _insert_run(connection: Connection, claim: Claim, result: SlideResult) -> int | None:
    """Return the id of the new run; None if this RunKey already has one."""
    analysis, provenance = result.analysis, result.provenance
    key, meta, tiles, counts = provenance.run_key, analysis.meta, analysis.tiles, analysis.differential
    bundle = upsert(ModelBundle).values(digest=key.bundle_digest, name=provenance.bundle_name)
    connection.execute(bundle.on_conflict_do_nothing())
    started_at = select(Attempt.started_at).where(
        Attempt.scan_id == claim.scan_id, Attempt.number == claim.attempt_number
    )
    row = upsert(Run).values(
        scan_id=claim.scan_id,
        scan_digest=key.scan_digest,
        bundle_digest=key.bundle_digest,
        spec_digest=key.spec_digest,
        engine=provenance.engine,
        software_version=provenance.software_version,
        status=analysis.status,
        reasons=list(analysis.reasons),
        flags=[flag.value for flag in analysis.flags],
        file_format=meta.file_format,
        scanner=meta.scanner,
        objective=meta.objective,
        width_px0=meta.size_px0.width,
        height_px0=meta.size_px0.height,
        file_mpp_um=meta.mpp.um_per_px0 if meta.mpp else None,
        mpp_um=analysis.scale.mpp.um_per_px0,
        scale_source=analysis.scale.source,
        tissue_fraction=analysis.quality.tissue_fraction,
        focus=analysis.quality.focus,
        stain_contrast=analysis.quality.stain_contrast,
        free_red_cells_per_mm2=analysis.quality.free_red_cells_per_mm2,
        tiles_planned=tiles.planned,
        tiles_empty=tiles.empty,
        tiles_analysed=tiles.analysed,
        n_found=counts.n_found,
        n_leukocytes=counts.n_leukocytes,
        n_unidentified=counts.n_unidentified,
        n_artefacts=counts.n_artefacts,
        probability_classes=[leaf.value for leaf in LEAVES],
        timing_stages=[stage for stage, _ in provenance.timings_s],
        timing_s=[seconds for _, seconds in provenance.timings_s],
        started_at=started_at.scalar_subquery(),
        finished_at=func.clock_timestamp(),
    )
    return connection.execute(
        row.on_conflict_do_nothing(constraint=RUN_KEY).returning(Run.id)
    ).scalar_one_or_none()


def _existing_run(connection: Connection, claim: Claim, result: SlideResult) -> int:
    key = result.provenance.run_key
    statement = select(Run.id).where(
        Run.scan_id == claim.scan_id,
        Run.scan_digest == key.scan_digest,
        Run.bundle_digest == key.bundle_digest,
        Run.spec_digest == key.spec_digest,
    )
    return connection.execute(statement).scalar_one()


def _copy_cells(connection: Connection, run_id: int, cells: Sequence[Cell]) -> None:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("cells are copy_chunks through psycopg")
    with driver.cursor() as cursor, cursor.copy(_COPY_CELLS) as copy:
        for part in copy_chunks(run_id, cells):
            copy.write(part)


def _insert_differential(connection: Connection, run_id: int, differential: Differential) -> None:
    rows = [
        {
            "run_id": run_id,
            "cell_class": line.cell_class,
            "ordinal": ordinal,
            "count": line.count,
            "percent": line.percent,
            "ci_low_percent": line.ci95_percent[0] if line.ci95_percent else None,
            "ci_high_percent": line.ci95_percent[1] if line.ci95_percent else None,
            "denominator": line.denominator,
        }
        for ordinal, line in enumerate(differential.classes)
    ]
    if rows:
        connection.execute(insert(DifferentialLine), rows)


def _insert_artefacts(connection: Connection, run_id: int, artefacts: Sequence[Artefact]) -> None:
    rows = [
        {
            "run_id": run_id,
            "bucket": artefact.bucket,
            "object_name": artefact.object_name,
            "kind": artefact.kind,
            "sha256": artefact.sha256,
            "size_bytes": artefact.size_bytes,
        }
        for artefact in artefacts
    ]
    if rows:
        connection.execute(insert(ArtefactRow), rows)
