"""Claims a scan from the ledger, keeps its lease, analyses it, and saves what came of it."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from db.database import Database
from db.errors import LeaseLost
from db.ledger import (
    claim,
    hand_back,
    heartbeat,
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
from worker.processing.priority_gate import PriorityGate
from worker.processing.result_pictures import Picture, pictures_of
from worker.processing.shared_exclusive_lock import SharedExclusiveLock
from worker.settings import Settings
from worker.storage.object_store import ObjectStore, StoredObject

BACKOFF_S = 5.0
MAX_BACKOFF_S = 300.0
_URGENCIES = {Priority.STAT: Urgency.STAT, Priority.ROUTINE: Urgency.ROUTINE}
BUG = "The analysis failed for a reason of its own; the operator finds it in the log under this scan's id."


class SpoolUnusable(TransientError):
    """This machine cannot store a scan for now: no fault of the scan's, so no attempt of it counts."""

    def __init__(self) -> None:
        super().__init__("the spool folder is full or cannot be written", code="spool_unusable")


@dataclass(frozen=True, slots=True)
class Analysed:
    """What came of one claimed scan, before it is saved."""

    result: SlideResult
    artefacts: tuple[Artefact, ...]


@dataclass(frozen=True, slots=True)
class ScanProcessor:
    """Everything that a worker needs to turn one claimed scan into a saved result."""

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
        """Return the claim, or None where there is nothing to do. What goes wrong inside ends in the ledger.

        A scan that was lost with its worker is alone in this one: if it is lost again, it is the cause.
        Raises: DeploymentError, after the scan was handed back: this worker cannot go on.
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
        with bound_contextvars(attempt=held.attempt_number), self._answering_for(held):
            yield held

    @contextmanager
    def _answering_for(self, held: Claim) -> Iterator[None]:
        """Return a context that spans the work on a claim: how it went ends in ledger, log and metrics."""
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
            # An outage may outlast every attempt of every scan that is claimed in it.
            log.warning("handed_back", code=error.code)
            with self._ending(Ending.HANDED_BACK, error.code) as connection:
                failure = Failure(error.code, error.sentence)
                hand_back(connection, held, failure, delay_s=_delay_s(held.attempt_number))
        except CapacityError as error:
            log.warning("retry_later", code=error.code)
            self._try_again(held, Failure(error.code, error.sentence))
        except DeploymentError as error:
            log.critical("handed_back", code=error.code, sentence=error.sentence)
            with self._ending(Ending.HANDED_BACK, error.code) as connection:
                hand_back(connection, held)
            raise
        except Exception:
            log.exception("unexpected_error")
            self._try_again(held, Failure("unexpected_error", BUG))

    def analyse(self, held: Claim) -> Analysed:
        """Return the result of the claimed scan; its pictures are in the results bucket."""
        with (
            self._gate_for(held.priority),
            self._lease(held) as monitor,
            self._fetched(held) as (path, digest),
        ):
            with self.database.transaction() as connection:
                record_digest(connection, held, digest)
            with self.analyser.open(path) as reader:
                result = self.analyser.analyse(reader, digest, monitor, _URGENCIES[held.priority])
                artefacts = tuple(
                    self._stored(result.provenance.run_key, picture)
                    for picture in pictures_of(reader, result)
                )
        return Analysed(result, artefacts)

    def _gate_for(self, priority: Priority) -> AbstractContextManager[None]:
        return self.priority_gate.closed() if priority is Priority.STAT else nullcontext()

    def save(self, held: Claim, analysed: Analysed) -> None:
        """Write the result in one transaction. Raises: LeaseLost, where somebody else has the scan by now."""
        with self.database.transaction() as connection:
            save_result(connection, held, analysed.result, analysed.artefacts)

    @contextmanager
    def _lease(self, held: Claim) -> Iterator[AnalysisMonitor]:
        """Keep the lease in a thread of its own; the monitor raises LeaseLost once it could not be kept."""
        lost, done = threading.Event(), threading.Event()
        wait_for_stat = self.priority_gate.waiter()

        def check() -> None:
            if held.priority is not Priority.STAT:
                wait_for_stat()
            if lost.is_set():
                raise LeaseLost(str(held.scan_id))

        monitor = AnalysisMonitor(check, self.traces.stages())

        def beat() -> None:
            while not done.wait(self.settings.heartbeat_s):
                # A database that is away is asked again: the lease may outlast it.
                with suppress(TransientError), self.database.transaction() as connection:
                    if not heartbeat(connection, held, _recorded(monitor.progress)):
                        lost.set()
                        return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            with self.metrics.observing(monitor):
                yield monitor
        finally:
            done.set()
            thread.join()

    @contextmanager
    def _fetched(self, held: Claim) -> Iterator[tuple[Path, str]]:
        """Return the scan's bytes in the spool, and their digest; the file is gone at the end."""
        ref = held.ref
        listed = StoredObject(
            key=ref.object_key,
            etag=ref.etag,
            size_bytes=ref.size_bytes,
            last_modified=None,
            version=None if ref.version == ref.etag else ref.version,
        )
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

    def _stored(self, key: RunKey, picture: Picture) -> Artefact:
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
        """Return a transaction that ends a claim; counted when committed, as lost where the claim was."""
        try:
            with self.database.transaction() as connection:
                yield connection
        except LeaseLost:
            ending = Ending.LEASE_LOST
        self.metrics.failed(ending, code)

    def _try_again(self, held: Claim, failure: Failure) -> None:
        is_last = held.attempts >= held.max_attempts
        with self._ending(Ending.QUARANTINED if is_last else Ending.RETRYABLE, failure.code) as connection:
            release_for_retry(connection, held, failure, delay_s=_delay_s(held.attempts))


def _recorded(progress: AnalysisProgress) -> Progress:
    return Progress(progress.tiles_done, progress.tiles_planned, progress.cells_found)


def _delay_s(attempt: int) -> float:
    """Return the wait after an attempt, longer with each; scans that failed together come back apart."""
    return min(MAX_BACKOFF_S, BACKOFF_S * 2.0 ** min(attempt - 1, 16)) * random.uniform(0.5, 1.0)


def _run_digest(key: RunKey) -> str:
    return hashlib.sha256(f"{key.scan_digest}{key.bundle_digest}{key.spec_digest}".encode()).hexdigest()
