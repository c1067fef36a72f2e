"""Results as the pipeline would give them, and uploads as the watcher would see them, made by hand."""

from __future__ import annotations

import hashlib
import uuid
from fractions import Fraction

import numpy as np

from db import ledger
from db.records import Arrival, ScanRef, SpecimenIdentity
from db.states import Priority
from pipeline.count.differential import differential_of
from pipeline.model.domain import (
    CallStatus,
    Cell,
    CellCall,
    CellInstance,
    Flag,
    Provenance,
    Quality,
    RunKey,
    Scale,
    ScaleSource,
    SlideAnalysis,
    SlideMeta,
    SlideResult,
    SlideStatus,
    TileCounts,
)
from pipeline.model.geometry import Mpp, Rect, Size, WorkingFrame
from pipeline.model.taxonomy import LEAVES, CellClass
from tests.support.one_upload import register


def digest_of(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def arrival(patient: str | None = "P1", specimen: str = "S1", **given) -> Arrival:
    """Return a new upload; `key` and `version` make it the same one."""
    key = given.get("key", f"key-{uuid.uuid4().hex}")
    version = given.get("version", "v1")
    return Arrival(
        ref=ScanRef("scans", key, version, size_bytes=1234, etag=version),
        slide_name="slide",
        identity=None if patient is None else SpecimenIdentity(patient, specimen),
        reason=None if patient else "the key has no folders",
        priority=given.get("priority", Priority.ROUTINE),
    )


def cell(ordinal: int, cell_class: CellClass, status: CallStatus = CallStatus.ACCEPTED) -> Cell:
    """Return a cell whose every number differs from its neighbours'."""
    x = 10 * ordinal
    corners = np.array([[x, 5], [x + 8.125, 5], [x + 8, 13.5], [x, 13]], dtype=np.float32)
    share = 0.4 / (len(LEAVES) - 1)
    sure = cell_class if cell_class in LEAVES else CellClass.NEUTROPHIL_BAND
    return Cell(
        CellInstance(
            bbox_px0=Rect(x, 5, 9, 9),
            centroid_px0=(x + 4.0625, 9.1),
            contour_px0=corners,
            nucleus_contours_px0=(corners[:3] + 1, corners + 2)[: ordinal % 3],
            area_px0=64.0 + ordinal,
            nucleus_area_px0=20.5,
            area_um2=4.0 + ordinal / 7,
            nucleus_area_um2=1.28,
            score=0.875,
            touches_edge=ordinal % 5 == 0,
        ),
        CellCall(
            cell_class=cell_class,
            status=status,
            probability=0.6,
            probabilities={leaf: 0.6 if leaf is sure else share for leaf in LEAVES},
            disagreement=0.125,
        ),
    )


def cells(**counts: int) -> tuple[Cell, ...]:
    """Return accepted cells, so many of each class; `unidentified` and `artefact` are statuses."""
    statuses = {status.value: status for status in CallStatus}
    wanted = []
    for word, count in counts.items():
        if word in statuses:
            wanted += [(CellClass.LYMPHOCYTE, statuses[word])] * count
        else:
            wanted += [(CellClass(word), CallStatus.ACCEPTED)] * count
    return tuple(cell(ordinal, *one) for ordinal, one in enumerate(wanted))


def result(
    found: tuple[Cell, ...],
    content: str = "content",
    *,
    bundle: str = "bundle",
    status: SlideStatus = SlideStatus.REPORTABLE,
) -> SlideResult:
    """Return a slide's result with these cells."""
    size_px0 = Size(2000, 1000)
    return SlideResult(
        SlideAnalysis(
            meta=SlideMeta(size_px0, None, 40.0, "a scanner", "tiff", ()),
            scale=Scale(Mpp(0.25), ScaleSource.RED_CELLS),
            frame=WorkingFrame(Fraction(1), size_px0),
            quality=Quality(0.5, 120.0, 0.25, 700.0),
            tiles=TileCounts(planned=8, empty=3, analysed=5),
            cells=found,
            differential=differential_of(one.call for one in found),
            status=status,
            reasons=() if status is SlideStatus.REPORTABLE else ("too few leukocytes",),
            flags=(Flag.SCALE_ESTIMATED,),
        ),
        Provenance(
            run_key=RunKey(digest_of(content), digest_of(bundle), digest_of("spec")),
            bundle_name="made by hand",
            engine="none 0",
            software_version="0.1.0",
            timings_s=(("tiles", 1.5), ("classify", 0.25)),
        ),
    )


def registered(database, *uploads: Arrival):
    """Return the ids of new uploads, in the order given."""
    with database.transaction() as connection:
        return [register(connection, upload).scan_id for upload in uploads]


def claimed(database, scan_id, *, worker: str = "worker-1", lease_s: float = 60.0):
    """Return a claim on a scan that is received or waiting."""
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan_id])
        return ledger.claim(connection, scan_id, worker=worker, lease_s=lease_s)
