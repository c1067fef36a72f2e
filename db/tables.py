"""The tables. Constraint names follow the convention below; statements are in the other modules.

patient ─< specimen ─< scan ─< attempt
                         └─< run ─< cell, differential, artefact;  run >─ model_bundle
event has no foreign keys: events outlive their scans, and hold internal ids only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.states import AttemptOutcome, Priority, ScanState
from pipeline.model.domain import CallStatus, ScaleSource, SlideStatus
from pipeline.model.taxonomy import CellClass, Denominator

Json = dict[str, "str | int | float | bool | Sequence[str] | None"]

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

NOW = text("now()")
ZERO = text("0")
DEFAULT_MAX_ATTEMPTS = 3
WORD_LENGTH = 32


class Base(DeclarativeBase):
    """All tables of the ledger."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own form
        str: Text,
        datetime: DateTime(timezone=True),
    }


def _words(words: type[StrEnum]) -> Enum:
    """Return a text column type for the words; the matching CHECK is declared in the table."""
    return Enum(
        words,
        native_enum=False,
        create_constraint=False,
        length=WORD_LENGTH,
        values_callable=lambda members: [member.value for member in members],
    )


def _one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


UuidKey = Annotated[UUID, mapped_column(primary_key=True, server_default=text("uuidv7()"))]
Moment = Annotated[datetime, mapped_column(server_default=NOW)]
Count = Annotated[int, mapped_column(Integer, server_default=ZERO)]


class Patient(Base):
    __tablename__ = "patient"

    id: Mapped[UuidKey]
    external_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[Moment]


class Specimen(Base):
    __tablename__ = "specimen"
    __table_args__ = (UniqueConstraint("patient_id", "external_id"),)

    id: Mapped[UuidKey]
    patient_id: Mapped[UUID] = mapped_column(ForeignKey("patient.id"))
    external_id: Mapped[str]
    created_at: Mapped[Moment]


class Scan(Base):
    __tablename__ = "scan"
    __table_args__ = (
        UniqueConstraint("bucket", "object_key", "version"),
        _one_of("state", ScanState),
        _one_of("priority", Priority),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        CheckConstraint("attempts >= 0 AND max_attempts > 0", name="attempts"),
        CheckConstraint("content_digest ~ '^[0-9a-f]{64}$'", name="content_digest"),
        CheckConstraint("(specimen_id IS NULL) = (state = 'unassigned')", name="unassigned_has_no_specimen"),
        CheckConstraint("(claim_token IS NULL) = (state <> 'running')", name="running_has_claim"),
        CheckConstraint(
            "state <> 'running' OR (claimed_by IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint(
            "state NOT IN ('unassigned', 'quarantined', 'retryable') OR reason IS NOT NULL",
            name="stopped_has_reason",
        ),
        CheckConstraint(
            "state <> 'completed' OR (current_run_id IS NOT NULL AND completed_at IS NOT NULL)",
            name="completed_has_run",
        ),
        Index(None, "state", "received_at"),
        Index(
            None, "state", "priority", "waiting_since", postgresql_where=text("state <> 'completed'")
        ),  # what waits, counted without the rows that are done
        Index(None, "specimen_id"),
        Index(None, "content_digest", postgresql_where=text("content_digest IS NOT NULL")),
        Index(None, "current_run_id"),
        Index(None, "same_content_as", postgresql_where=text("same_content_as IS NOT NULL")),
        {"postgresql_with": {"fillfactor": "80"}},  # heartbeats update in place
    )

    id: Mapped[UuidKey]
    bucket: Mapped[str]
    object_key: Mapped[str]
    version: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    etag: Mapped[str]
    content_digest: Mapped[str | None]
    specimen_id: Mapped[UUID | None] = mapped_column(ForeignKey("specimen.id"))
    slide_name: Mapped[str]
    state: Mapped[ScanState] = mapped_column(_words(ScanState))
    error_code: Mapped[str | None]
    reason: Mapped[str | None]
    priority: Mapped[Priority] = mapped_column(_words(Priority))
    background: Mapped[bool] = mapped_column(server_default=text("false"))
    """analysed only when nothing else waits"""
    attempts: Mapped[Count]
    max_attempts: Mapped[int] = mapped_column(server_default=text(str(DEFAULT_MAX_ATTEMPTS)))
    claims: Mapped[Count]
    sends: Mapped[Count]
    queued_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    claimed_by: Mapped[str | None]
    claim_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    tiles_done: Mapped[Count]
    tiles_planned: Mapped[Count]
    cells_found: Mapped[Count]
    same_content_as: Mapped[UUID | None] = mapped_column(ForeignKey("scan.id"))
    current_run_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("run.id", use_alter=True))
    received_at: Mapped[Moment]
    completed_at: Mapped[datetime | None]
    updated_at: Mapped[Moment]
    waiting_since: Mapped[Moment]


class Attempt(Base):
    __tablename__ = "attempt"
    __table_args__ = (
        _one_of("outcome", AttemptOutcome),
        CheckConstraint("(finished_at IS NULL) = (outcome IS NULL)", name="finished_has_outcome"),
        Index(None, "worker", postgresql_where=text("outcome = 'lost' OR outcome IS NULL")),
        Index(None, "started_at"),
    )

    scan_id: Mapped[UUID] = mapped_column(ForeignKey("scan.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[Moment]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(_words(AttemptOutcome))
    error_code: Mapped[str | None]
    reason: Mapped[str | None]


class ModelBundle(Base):
    __tablename__ = "model_bundle"

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    manifest: Mapped[Json | None] = mapped_column(JSONB)
    created_at: Mapped[Moment]


class Run(Base):
    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("scan_id", "scan_digest", "bundle_digest", "spec_digest", name="uq_run_key"),
        _one_of("status", SlideStatus),
        _one_of("scale_source", ScaleSource),
        CheckConstraint("width_px0 > 0 AND height_px0 > 0", name="size_px0"),
        CheckConstraint("mpp_um > 0 AND (file_mpp_um IS NULL OR file_mpp_um > 0)", name="mpp_um"),
        CheckConstraint("tiles_planned = tiles_empty + tiles_analysed", name="tiles_add_up"),
        CheckConstraint(
            "n_found >= 0 AND n_leukocytes >= 0 AND n_unidentified >= 0 AND n_artefacts >= 0"
            " AND n_found >= n_leukocytes + n_unidentified + n_artefacts",
            name="cells_add_up",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    scan_id: Mapped[UUID] = mapped_column(ForeignKey("scan.id"))
    scan_digest: Mapped[str]
    bundle_digest: Mapped[str] = mapped_column(ForeignKey("model_bundle.digest"))
    spec_digest: Mapped[str]
    engine: Mapped[str]
    software_version: Mapped[str]
    status: Mapped[SlideStatus] = mapped_column(_words(SlideStatus))
    reasons: Mapped[list[str]] = mapped_column(ARRAY(Text))
    flags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    file_format: Mapped[str]
    scanner: Mapped[str | None]
    objective: Mapped[float | None]
    width_px0: Mapped[int]
    height_px0: Mapped[int]
    file_mpp_um: Mapped[float | None]
    mpp_um: Mapped[float]
    scale_source: Mapped[ScaleSource] = mapped_column(_words(ScaleSource))
    tissue_fraction: Mapped[float]
    focus: Mapped[float]
    stain_contrast: Mapped[float]
    free_red_cells_per_mm2: Mapped[float]
    tiles_planned: Mapped[int]
    tiles_empty: Mapped[int]
    tiles_analysed: Mapped[int]
    n_found: Mapped[int]
    n_leukocytes: Mapped[int]
    n_unidentified: Mapped[int]
    n_artefacts: Mapped[int]
    probability_classes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    timing_stages: Mapped[list[str]] = mapped_column(ARRAY(Text))
    timing_s: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    started_at: Mapped[datetime]
    finished_at: Mapped[Moment]


class Cell(Base):
    """Contours are little-endian float32 pairs (x, y) in level-0 pixels (docs/adr/cells-as-rows.md)."""

    __tablename__ = "cell"
    __table_args__ = (
        _one_of("status", CallStatus),
        CheckConstraint("width_px0 > 0 AND height_px0 > 0", name="bbox_px0"),
        CheckConstraint("probability BETWEEN 0 AND 1.000001", name="probability"),
    )

    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("run.id"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    x_px0: Mapped[int]
    y_px0: Mapped[int]
    width_px0: Mapped[int]
    height_px0: Mapped[int]
    centroid_x_px0: Mapped[float]
    centroid_y_px0: Mapped[float]
    area_px0: Mapped[float]
    nucleus_area_px0: Mapped[float]
    area_um2: Mapped[float]
    nucleus_area_um2: Mapped[float]
    score: Mapped[float] = mapped_column(REAL)
    touches_edge: Mapped[bool]
    cell_class: Mapped[CellClass] = mapped_column(_words(CellClass))
    status: Mapped[CallStatus] = mapped_column(_words(CallStatus))
    probability: Mapped[float] = mapped_column(REAL)
    disagreement: Mapped[float] = mapped_column(REAL)
    probabilities: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    nucleus_points: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    contour_px0: Mapped[bytes] = mapped_column(LargeBinary)
    nucleus_contours_px0: Mapped[bytes] = mapped_column(LargeBinary)


class DifferentialLine(Base):
    __tablename__ = "differential"
    __table_args__ = (
        _one_of("denominator", Denominator),
        CheckConstraint('"count" >= 0', name="count"),
        CheckConstraint("(ci_low_percent IS NULL) = (ci_high_percent IS NULL)", name="interval"),
        UniqueConstraint("run_id", "ordinal"),
    )

    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("run.id"), primary_key=True)
    cell_class: Mapped[CellClass] = mapped_column(_words(CellClass), primary_key=True)
    ordinal: Mapped[int]
    count: Mapped[int]
    percent: Mapped[float | None]
    ci_low_percent: Mapped[float | None]
    ci_high_percent: Mapped[float | None]
    denominator: Mapped[Denominator] = mapped_column(_words(Denominator))


class ArtefactRow(Base):
    __tablename__ = "artefact"
    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size_bytes"), Index(None, "object_name"))

    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("run.id"), primary_key=True)
    bucket: Mapped[str] = mapped_column(primary_key=True)
    object_name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """Append-only: a trigger forbids UPDATE, DELETE and TRUNCATE. No foreign keys, no patient identifiers."""

    __tablename__ = "event"
    __table_args__ = (Index(None, "scan_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    scan_id: Mapped[UUID | None]
    kind: Mapped[str]
    detail: Mapped[Json] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    db_user: Mapped[str | None] = mapped_column(server_default=text("SESSION_USER"))


PATIENT_RUN = table(
    "patient_run",
    column("patient_id", Uuid()),
    column("scan_id", Uuid()),
    column("run_id", BigInteger()),
    column("pooled", Boolean()),
)
"""A view: the current run of each scan by patient; `pooled` says whether it counts towards the
differential."""
