"""What must be true at the end: bucket, ledger, results and artefacts say the same, once for each scan."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile
from uuid import UUID

from sqlalchemy import Connection, func, select

from db.ledger import WORKER_LOST
from db.states import AttemptOutcome, ScanState
from db.tables import ArtefactRow, Attempt, Cell, Run, Scan
from tests.chaos.laboratory import POISON_ATTEMPTS, Laboratory
from tests.chaos.scans import DroppedScan
from worker.storage.object_store import ObjectStore

LIMIT_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Verdict:
    """The keys of the scans that went astray, with what is wrong about each; all empty where all is well."""

    lost: tuple[str, ...]
    """uploaded, and neither completed nor put aside with a reason; or gone from the bucket"""
    double: tuple[str, ...]
    """known or completed twice"""
    wrong: tuple[str, ...]
    """a result that is not the scan's, an artefact that is not the result's, a reason that is not true"""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger says of one upload."""

    scan_id: UUID
    state: ScanState
    error_code: str | None
    attempts: int
    content_digest: str | None
    current_run_id: int | None


def judged(lab: Laboratory, dropped: Sequence[DroppedScan]) -> Verdict:
    """Return the verdict on everything that was dropped. The set is at rest, its servers up."""
    in_bucket = {found.key for found in lab.scans.list()}
    with lab.database.transaction() as connection:
        rows = list(_rows(connection))
        runs = _runs(connection)
        completions = _completions(connection)
        artefacts = {
            row.object_name: row.sha256
            for row in connection.execute(select(ArtefactRow.object_name, ArtefactRow.sha256))
        }
    known = dict(rows)
    double = [key for key, times in Counter(key for key, _ in rows).items() if times > 1]
    double += [key for key, scan in rows if len(runs.get(scan.scan_id, [])) > 1]
    double += [key for key, scan in rows if completions[scan.scan_id] > 1]
    lost = [scan.key for scan in dropped if scan.key not in in_bucket or not _has_ended(known.get(scan.key))]
    wrong = [
        f"{scan.key}: {why}"
        for scan in dropped
        if (found := known.get(scan.key)) is not None
        for why in _faults_of(scan, found, runs.get(found.scan_id, []))
    ]
    wrong += _astray(lab.results, artefacts)
    return Verdict(tuple(lost), tuple(double), tuple(wrong))


def completion_times(lab: Laboratory) -> list[datetime]:
    """Return when scans were completed, the earliest first, by the database's clock."""
    with lab.database.transaction() as connection:
        times = connection.execute(select(Scan.completed_at).where(Scan.completed_at.is_not(None))).scalars()
        return sorted(time for time in times if time is not None)


def _rows(connection: Connection) -> Iterator[tuple[str, _Known]]:
    statement = select(
        Scan.object_key,
        Scan.id,
        Scan.state,
        Scan.error_code,
        Scan.attempts,
        Scan.content_digest,
        Scan.current_run_id,
    )
    for key, *rest in connection.execute(statement):
        yield key, _Known(*rest)


@dataclass(frozen=True, slots=True)
class _Result:
    run_id: int
    scan_digest: str
    found: int
    stored: int


def _runs(connection: Connection) -> Mapping[UUID, list[_Result]]:
    stored = select(func.count()).where(Cell.run_id == Run.id).scalar_subquery()
    results: dict[UUID, list[_Result]] = {}
    for scan_id, *rest in connection.execute(
        select(Run.scan_id, Run.id, Run.scan_digest, Run.n_found, stored)
    ):
        results.setdefault(scan_id, []).append(_Result(*rest))
    return results


def _completions(connection: Connection) -> Counter[UUID]:
    completed = select(Attempt.scan_id).where(Attempt.outcome == AttemptOutcome.COMPLETED)
    return Counter(connection.execute(completed).scalars())


def _has_ended(scan: _Known | None) -> bool:
    if scan is None:
        return False
    return scan.state is ScanState.COMPLETED or (
        scan.state is ScanState.QUARANTINED and scan.error_code is not None
    )


def _faults_of(scan: DroppedScan, known: _Known, results: Sequence[_Result]) -> Iterator[str]:
    if scan.poisoned:
        if (known.state, known.error_code) != (ScanState.QUARANTINED, WORKER_LOST.code):
            yield f"kills its worker, and is {known.state} ({known.error_code})"
        if known.attempts != POISON_ATTEMPTS:
            yield f"kills its worker, and had {known.attempts} attempts"
        return
    if known.state is ScanState.QUARANTINED:
        yield f"put aside though it is sound ({known.error_code})"
        return
    for result in results:
        if result.run_id != known.current_run_id or {result.scan_digest, known.content_digest} != {
            scan.digest
        }:
            yield "the result is of other bytes"
        if not result.found == result.stored == scan.cells:
            yield f"{scan.cells} cells drawn, {result.found} found, {result.stored} stored"
    if known.state is ScanState.COMPLETED and not results:
        yield "completed without a result"


def _astray(results: ObjectStore, expected: Mapping[str, str]) -> Iterable[str]:
    """Yield the artefacts that are missing, are other bytes than the ledger says, or that nobody knows."""
    listed = {found.key: found for found in results.list()}
    for name in sorted(expected.keys() | listed.keys()):
        if name not in listed:
            yield f"{name}: no such object"
        elif name not in expected:
            yield f"{name}: no result knows it"
        else:
            with TemporaryFile() as file:
                results.get_to(listed[name], file, LIMIT_BYTES)
                file.seek(0)
                if hashlib.sha256(file.read()).hexdigest() != expected[name]:
                    yield f"{name}: other bytes than the result says"
