"""The frozen records of the ledger. Whatever could identify a patient is left out of `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from db.states import Priority, ScanState
from pipeline.model.domain import (
    Differential,
    Flag,
    Provenance,
    Quality,
    Scale,
    SlideStatus,
    TileCounts,
)
from pipeline.model.geometry import Mpp, Size


@dataclass(frozen=True, slots=True)
class ScanRef:
    """The identity of an upload: bucket, key and version name one scan."""

    bucket: str
    object_key: str = field(repr=False)
    version: str
    """the store's version id, else the etag"""
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class SpecimenIdentity:
    """The patient and specimen of a scan, as numbers of the laboratory."""

    patient: str = field(repr=False)
    specimen: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An upload as the watcher saw it. Without an identity, `reason` says why there is none."""

    ref: ScanRef
    slide_name: str = field(repr=False)
    identity: SpecimenIdentity | None = None
    reason: str | None = None
    priority: Priority = Priority.ROUTINE


@dataclass(frozen=True, slots=True)
class Registered:
    """A new row of the ledger."""

    scan_id: UUID
    state: ScanState
    priority: Priority


@dataclass(frozen=True, slots=True)
class Due:
    """A scan whose message has to be sent."""

    scan_id: UUID
    priority: Priority


@dataclass(frozen=True, slots=True)
class Claim:
    """The exclusive right to analyse one scan until the lease expires.

    `token` is the fencing token of its writes.
    """

    scan_id: UUID
    token: UUID
    worker: str
    lease_s: float
    attempt_number: int
    """counts every claim of the scan, from 1"""
    attempts: int
    """counts towards `max_attempts`; this one included"""
    max_attempts: int
    ref: ScanRef
    slide_name: str = field(repr=False)
    priority: Priority
    waited_s: float
    """from the scan's arrival, assignment or requeueing to this claim"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running analysis is."""

    tiles_done: int
    tiles_planned: int
    cells_found: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended without a result: a stable code and a sentence for the technician."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Expired:
    """A scan whose lease expired, and its new state."""

    scan_id: UUID
    state: ScanState
    """retryable, or quarantined after its last attempt"""


@dataclass(frozen=True, slots=True)
class Artefact:
    """An object stored with the result. Its name is derived from the RunKey, never from a patient."""

    kind: str
    bucket: str
    object_name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The run of a completed scan; `is_new` is False if a run with this RunKey already existed."""

    run_id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class ScanFilter:
    """Which scans to list; None leaves a criterion out."""

    patient: str | None = field(default=None, repr=False)
    state: ScanState | None = None
    limit: int | None = None
    scan_ids: tuple[UUID, ...] = ()
    """only these; none: all"""


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One scan as listed for people."""

    scan_id: UUID
    patient: str | None = field(repr=False)
    specimen: str | None = field(repr=False)
    slide_name: str = field(repr=False)
    state: ScanState
    reason: str | None
    error_code: str | None
    priority: Priority
    attempts: int
    max_attempts: int
    claimed_by: str | None
    progress: Progress
    status: SlideStatus | None
    """of the result, where there is one"""
    n_leukocytes: int | None
    same_content_as: UUID | None
    """a scan of *another* patient with the same bytes: one of the two may be mislabelled"""
    received_at: datetime
    completed_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of one analysis, without its cells (`reads.cells_of_run`)."""

    run_id: int
    status: SlideStatus
    reasons: tuple[str, ...]
    flags: tuple[Flag, ...]
    size_px0: Size
    file_format: str
    file_mpp: Mpp | None
    """None where the file did not say"""
    scale: Scale
    quality: Quality
    tiles: TileCounts
    differential: Differential
    provenance: Provenance
    artefacts: tuple[Artefact, ...]
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class SlideReport:
    """One scan of a patient, with its current result if there is one."""

    scan_id: UUID
    specimen: str = field(repr=False)
    slide_name: str = field(repr=False)
    state: ScanState
    reason: str | None
    priority: Priority
    received_at: datetime
    same_content_as: UUID | None
    """a scan of *another* patient with the same bytes"""
    run: RunReport | None
    pooled: bool
    """whether it counts towards the patient's differential; rejected slides and repeated files do not"""


@dataclass(frozen=True, slots=True)
class PatientResult:
    """A patient's slides, and their differentials pooled."""

    patient: str = field(repr=False)
    patient_id: UUID
    slides: tuple[SlideReport, ...]
    """in order of arrival"""
    pooled: Differential
    n_slides_pooled: int
