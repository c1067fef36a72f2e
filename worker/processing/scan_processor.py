"""Claims a scan in the ledger, analyses it, and saves the result."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from db.backoff import AFTER_FAILURE
from db.database import Database
from db.errors import LeaseLost
from db.ledger import (
    claim,
    hand_back,
    is_suspect,
    quarantine,
    record_digest,
    release_for_retry,
)
from db.records import Artefact, Claim, Failure, Progress
from db.results import save_result
from db.states import Priority
from pipeline.model.domain import RunKey, SlideResult
from pipeline.model.errors import CapacityError, DeploymentError, InputError, TransientError
from pipeline.runtime.analysis_monitor import AnalysisMonitor, AnalysisProgress
from pipeline.runtime.concurrency.batcher import Urgency
from pipeline.runtime.slide_analyser import SlideAnalyser
from worker.observability.traces import NoTraces, Traces
from worker.observability.worker_metrics import Ending, WorkerMetrics
from worker.processing.lease import Lease
from worker.processing.priority_gate import PriorityGate
from worker.processing.result_pictures import Picture, pictures_of
from worker.processing.shared_exclusive_lock import SharedExclusiveLock
from worker.settings import Settings
from worker.storage.object_store import ObjectStore
from worker.storage.scan_refs import stored_object_of

_URGENCIES = {Priority.STAT: Urgency.STAT, Priority.ROUTINE: Urgency.ROUTINE}
BUG = "The analysis failed through a fault in the software; the log has details under this scan's id."


class SpoolUnusable(TransientError):
    """This machine cannot store a scan at the moment. It is not the scan's fault."""

    def __init__(self) -> None:
        super().__init__("the spool folder is full or cannot be written", code="spool_unusable")


@dataclass(frozen=True, slots=True)
class Analysed:
    """The result of one claimed scan, not yet saved."""

    result: SlideResult
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, slots=True)
class ScanProcessor:
    """Claims, analyses and saves scans with the services and the models of one worker."""

    settings: Settings
    database: Database
    scans: ObjectStore
    results: ObjectStore
    analyser: SlideAnalyser
    worker: str
    metrics: WorkerMetrics
    lock: SharedExclusiveLock = field(default_factory=SharedExclusiveLock)
    priority_gate: PriorityGate = field(default_factory=PriorityGate)
    traces: Traces = field(default_factory=NoTraces)

    @contextmanager
    def claimed(self, scan_id: UUID) -> Iterator[Claim | None]:
        """Return a context with the claim, or None where there is nothing to do.

        Failures inside it are recorded in the ledger. A scan whose last worker was lost is
        analysed alone: if this worker is lost too, that scan is the cause.
        Raises: DeploymentError, once the scan was handed back: this worker cannot continue.
        """
        with bound_contextvars(scan_id=str(scan_id), worker=self.worker):
            with self.database.transaction() as connection:
                suspect = is_suspect(connection, scan_id)
            with self.lock.exclusive() if suspect else self.lock.shared(), self._claimed(scan_id) as held:
                yield held

    @contextmanager
    def _claimed(self, scan_id: UUID) -> Iterator[Claim | None]:
        with self.database.transaction() as connection:
            held = claim(connection, scan_id, worker=self.worker, lease_s=self.settings.lease_s)
        if held is None:
            structlog.get_logger().info("nothing_to_claim")
            yield None
            return
        with bound_contextvars(attempt=held.attempt_number), self._outcome_recorded(held):
            yield held

    @contextmanager
    def _outcome_recorded(self, held: Claim) -> Iterator[None]:
        """Return a context around the work on a claim, whose outcome is recorded, logged and counted."""
        log, claimed_s = structlog.get_logger(), monotonic()
        log.info("claimed")
        if held.attempt_number == 1:
            self.metrics.claimed(held.priority, held.waited_s)
        try:
            with self.traces.attempt(held):
                yield
            log.info("completed")
            self.metrics.completed(held.priority, held.waited_s + monotonic() - claimed_s)
        except LeaseLost as error:
            log.warning("lease_lost")
            self.metrics.failed(Ending.LEASE_LOST, error.code)
        except InputError as error:
            log.warning("quarantined", code=error.code)
            with self._ending(Ending.QUARANTINED, error.code) as connection:
                quarantine(connection, held, Failure(error.code, error.sentence))
        except TransientError as error:
            # The attempt does not count: a long outage would use up all attempts of every scan.
            log.warning("handed_back", code=error.code)
            with self._ending(Ending.HANDED_BACK, error.code) as connection:
                failure = Failure(error.code, error.sentence)
                hand_back(connection, held, failure, delay_s=_delay_s(held.attempt_number))
        except CapacityError as error:
            log.warning("attempt_failed", code=error.code)
            self._retry_or_quarantine(held, Failure(error.code, error.sentence))
        except DeploymentError as error:
            log.critical("handed_back", code=error.code, sentence=error.sentence)
            with self._ending(Ending.HANDED_BACK, error.code) as connection:
                hand_back(connection, held)
            raise
        except Exception:
            log.exception("unexpected_error")
            self._retry_or_quarantine(held, Failure("unexpected_error", BUG))

    def analyse(self, held: Claim) -> Analysed:
        """Return the result of the claimed scan, its pictures already stored in the results bucket."""
        with (
            self._gate_for(held.priority),
            self._monitored(held) as monitor,
            self._fetched(held) as (path, digest),
        ):
            with self.database.transaction() as connection:
                record_digest(connection, held, digest)
            with self.analyser.open(path) as reader:
                result = self.analyser.analyse(reader, digest, monitor, _URGENCIES[held.priority])
                artefacts = tuple(
                    self._store(result.provenance.run_key, picture) for picture in pictures_of(reader, result)
                )
        return Analysed(result, artefacts)

    def _gate_for(self, priority: Priority) -> AbstractContextManager[None]:
        return self.priority_gate.closed() if priority is Priority.STAT else nullcontext()

    def save(self, held: Claim, analysed: Analysed) -> None:
        """Save the result in one transaction. Raises: LeaseLost, where the claim no longer holds."""
        with self.database.transaction() as connection:
            save_result(connection, held, analysed.result, analysed.artefacts)

    @contextmanager
    def _monitored(self, held: Claim) -> Iterator[AnalysisMonitor]:
        """Return a context with the monitor of the analysis, which stops it once the lease is lost."""
        lease = Lease(self.database, held, self.settings.heartbeat_s)
        wait_for_stat = self.priority_gate.waiter()

        def check() -> None:
            if held.priority is not Priority.STAT:
                wait_for_stat()
            lease.require()

        monitor = AnalysisMonitor(check, self.traces.stages())
        with lease.renewed(lambda: _recorded(monitor.progress)), self.metrics.observing(monitor):
            yield monitor

    @contextmanager
    def _fetched(self, held: Claim) -> Iterator[tuple[Path, str]]:
        """Return a context with the scan's file in the spool folder, which is temporary, and its digest."""
        listed = stored_object_of(held.ref)
        with ExitStack() as stack:
            try:
                self.settings.spool_dir.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(
                    NamedTemporaryFile(dir=self.settings.spool_dir, prefix="leukoflow-")
                )
                digest = self.scans.get_to(listed, file, self.settings.max_file_bytes)
                file.flush()
            except OSError as error:
                raise SpoolUnusable from error
            self.metrics.read(listed.size_bytes)
            yield Path(file.name), digest

    def _store(self, key: RunKey, picture: Picture) -> Artefact:
        name = f"runs/{_run_digest(key)}/{picture.name}"
        self.results.put_bytes(name, picture.body, picture.content_type)
        return Artefact(
            kind=picture.name.split(".")[0].split("-")[0],
            bucket=self.settings.bucket_results,
            object_name=name,
            sha256=hashlib.sha256(picture.body).hexdigest(),
            size_bytes=len(picture.body),
        )

    @contextmanager
    def _ending(self, ending: Ending, code: str) -> Iterator[Connection]:
        """Return a transaction that ends a claim; the metrics count it once committed, or as a lost lease."""
        try:
            with self.database.transaction() as connection:
                yield connection
        except LeaseLost:
            ending = Ending.LEASE_LOST
        self.metrics.failed(ending, code)

    def _retry_or_quarantine(self, held: Claim, failure: Failure) -> None:
        is_last = held.attempts >= held.max_attempts
        with self._ending(Ending.QUARANTINED if is_last else Ending.RETRYABLE, failure.code) as connection:
            release_for_retry(connection, held, failure, delay_s=_delay_s(held.attempts))


def _recorded(progress: AnalysisProgress) -> Progress:
    return Progress(progress.tiles_done, progress.tiles_planned, progress.cells_found)


def _delay_s(attempt: int) -> float:
    return AFTER_FAILURE.delay_s(attempt, random.random())


def _run_digest(key: RunKey) -> str:
    return hashlib.sha256(f"{key.scan_digest}{key.bundle_digest}{key.spec_digest}".encode()).hexdigest()
