"""Reads runs: an analysis with its differential, provenance and artefacts, without its cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, select

from db.records import Artefact, RunReport
from db.tables import ArtefactRow, DifferentialLine, ModelBundle, Run
from pipeline.model.domain import (
    ClassCount,
    Differential,
    Flag,
    Provenance,
    Quality,
    RunKey,
    Scale,
    TileCounts,
)
from pipeline.model.geometry import Mpp, Size


def runs_by_id(connection: Connection, run_ids: Sequence[int]) -> dict[int, RunReport]:
    """Return the runs by id, with three statements in all."""
    if not run_ids:
        return {}
    lines = _lines(connection, run_ids)
    artefacts = _artefacts(connection, run_ids)
    statement = (
        select(Run.__table__, ModelBundle.name.label("bundle_name"))
        .join(ModelBundle, ModelBundle.digest == Run.bundle_digest)
        .where(Run.id.in_(run_ids))
    )
    return {
        row.id: RunReport(
            run_id=row.id,
            status=row.status,
            reasons=tuple(row.reasons),
            flags=tuple(Flag(flag) for flag in row.flags),
            size_px0=Size(row.width_px0, row.height_px0),
            file_format=row.file_format,
            file_mpp=Mpp(row.file_mpp_um) if row.file_mpp_um is not None else None,
            scale=Scale(Mpp(row.mpp_um), row.scale_source),
            quality=Quality(row.tissue_fraction, row.focus, row.stain_contrast, row.free_red_cells_per_mm2),
            tiles=TileCounts(row.tiles_planned, row.tiles_empty, row.tiles_analysed),
            differential=Differential(
                row.n_leukocytes, row.n_unidentified, row.n_artefacts, row.n_found, tuple(lines[row.id])
            ),
            provenance=Provenance(
                RunKey(row.scan_digest, row.bundle_digest, row.spec_digest),
                bundle_name=row.bundle_name,
                engine=row.engine,
                software_version=row.software_version,
                timings_s=tuple(zip(row.timing_stages, row.timing_s, strict=True)),
            ),
            artefacts=tuple(artefacts[row.id]),
            started_at=row.started_at,
            finished_at=row.finished_at,
        )
        for row in connection.execute(statement)
    }


def _lines(connection: Connection, run_ids: Sequence[int]) -> defaultdict[int, list[ClassCount]]:
    lines: defaultdict[int, list[ClassCount]] = defaultdict(list)
    statement = (
        select(DifferentialLine.__table__)
        .where(DifferentialLine.run_id.in_(run_ids))
        .order_by(DifferentialLine.run_id, DifferentialLine.ordinal)
    )
    for row in connection.execute(statement):
        low, high = row.ci_low_percent, row.ci_high_percent
        interval = None if low is None or high is None else (low, high)
        # not `row.count`: that is a method of tuple
        lines[row.run_id].append(
            ClassCount(row.cell_class, row._mapping["count"], row.percent, interval, row.denominator)
        )
    return lines


def _artefacts(connection: Connection, run_ids: Sequence[int]) -> defaultdict[int, list[Artefact]]:
    artefacts: defaultdict[int, list[Artefact]] = defaultdict(list)
    statement = (
        select(ArtefactRow.__table__)
        .where(ArtefactRow.run_id.in_(run_ids))
        .order_by(ArtefactRow.run_id, ArtefactRow.kind, ArtefactRow.object_name)
    )
    for row in connection.execute(statement):
        artefacts[row.run_id].append(
            Artefact(row.kind, row.bucket, row.object_name, row.sha256, row.size_bytes)
        )
    return artefacts
