"""The watcher: registers new uploads in the ledger, and sends messages for scans that wait.

Each sweep compares the full listing of the bucket with the ledger. Nothing depends on bucket events, on the
order of keys or on the clock of the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

import structlog

from db.database import Database
from db.ledger import due_for_enqueue, expire_leases, mark_queued
from db.records import Arrival, Due, SpecimenIdentity
from db.registration import register_many, unregistered
from pipeline.model.errors import InputError, TransientError
from worker.ingest.identification import Unidentified, identify, priority_of
from worker.key_pattern import KeyPattern
from worker.observability.watcher_metrics import Step, WatcherMetrics
from worker.queue.celery_app import CeleryQueue
from worker.settings import Settings
from worker.storage.object_store import ObjectStore, StoredObject
from worker.storage.paging import pages
from worker.storage.scan_refs import scan_ref_of

HEADS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Sweep:
    """The counts of one sweep: listed = known + registered + unsettled + gone."""

    listed: int
    known: int
    registered: int
    unsettled: int
    """new, but changed within the settle time"""
    gone: int
    """deleted or replaced after it was listed"""


@dataclass(frozen=True, slots=True)
class _Unsettled:
    etag: str
    size_bytes: int
    since_s: float


class Watcher:
    """Watches one bucket. Several watchers may run at once: each upload is registered once."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        scans: ObjectStore,
        queue: CeleryQueue,
        metrics: WatcherMetrics,
    ) -> None:
        self._settings = settings
        self._database = database
        self._scans = scans
        self._queue = queue
        self._metrics = metrics
        self._pattern = KeyPattern.parse(settings.key_pattern)
        self._unsettled: dict[str, _Unsettled] = {}

    def run(self, stop: threading.Event) -> None:
        """Sweep, reconcile and dispatch until `stop` is set. A failed step does not stop the others."""
        due_s = monotonic()
        while not stop.is_set():
            self._run_step(Step.SWEEP, self.sweep)
            if monotonic() >= due_s:
                due_s = monotonic() + self._settings.reconcile_s
                self._run_step(Step.RECONCILE, self.reconcile)
            self._run_step(Step.DISPATCH, self.dispatch)
            stop.wait(self._settings.poll_s)

    def sweep(self) -> Sweep:
        """Register every settled new object; return the counts."""
        listed = known = registered = gone = 0
        before, self._unsettled = self._unsettled, {}
        for page in pages(self._scans.list()):
            fresh = self._unregistered(page)
            settled = [found for found in fresh if self._is_settled(found, before)]
            inspected = self._inspected(settled)
            arrivals = [one for one in inspected if isinstance(one, Arrival)]
            for found in (found for found in inspected if isinstance(found, StoredObject)):
                self._unsettled[found.key] = before.get(found.key) or _unsettled_now(found)
            self._register(arrivals)
            listed += len(page)
            known += len(page) - len(fresh)
            registered += len(arrivals)
            gone += sum(one is None for one in inspected)
            self._metrics.progressed()
        sweep = Sweep(listed, known, registered, len(self._unsettled), gone)
        if registered:
            structlog.get_logger().info("swept", listed=listed, registered=registered)
        return sweep

    def reconcile(self) -> int:
        """Release scans whose lease expired; return their number."""
        with self._database.transaction() as connection:
            expired = expire_leases(connection)
        for scan in expired:
            structlog.get_logger().warning("lease_expired", scan_id=str(scan.scan_id), state=scan.state.value)
            self._metrics.expired(scan.state)
        return len(expired)

    def dispatch(self) -> int:
        """Send the due messages, each after the commit that marked its scan queued; return their number."""
        sent = 0
        while due := self._marked():
            sent += self._sent(due)
        return sent

    def _sent(self, due: list[Due]) -> int:
        count = self._queue.send(due)
        self._metrics.sent(count)
        return count

    def _marked(self) -> list[Due]:
        with self._database.transaction() as connection:
            due = due_for_enqueue(connection, resend_after_s=self._settings.resend_after_s)
            return mark_queued(connection, [scan.scan_id for scan in due])

    def _unregistered(self, page: list[StoredObject]) -> list[StoredObject]:
        by_ref = {scan_ref_of(self._settings.bucket_scans, found): found for found in page}
        with self._database.transaction() as connection:
            return [by_ref[ref] for ref in unregistered(connection, list(by_ref))]

    def _is_settled(self, found: StoredObject, before: dict[str, _Unsettled]) -> bool:
        """Return whether the object has not changed for the settle time; if it has, remember it."""
        seen = before.get(found.key)
        if seen is None or (seen.etag, seen.size_bytes) != (found.etag, found.size_bytes):
            seen = _unsettled_now(found)
            same = self._settings.settle_s == 0
        else:
            same = True
        if same and monotonic() - seen.since_s >= self._settings.settle_s:
            return True
        self._unsettled[found.key] = seen
        return False

    def _inspected(self, settled: list[StoredObject]) -> list[Arrival | StoredObject | None]:
        """Return each upload with its identity; None if it is gone; the object itself if it could not be
        read.

        Raises: TransientError, where no object could be read: the store is unreachable.
        """
        with ThreadPoolExecutor(HEADS_AT_ONCE, thread_name_prefix="head") as pool:
            inspected = list(pool.map(self._inspect, settled))
        if inspected and all(isinstance(one, StoredObject) for one in inspected):
            self._scans.exists(settled[0].key)
        return inspected

    def _inspect(self, found: StoredObject) -> Arrival | StoredObject | None:
        try:
            return self._arrival(found)
        except TransientError as error:
            structlog.get_logger().warning("object_stat_failed", code=error.code)
            return found

    def _arrival(self, found: StoredObject) -> Arrival | None:
        """Return the upload with its identity, or None if it was deleted or replaced."""
        try:
            stat = self._scans.stat(found.key)
        except InputError as error:
            return None if error.code == "object_deleted" else self._identified(found, {})
        return self._identified(found, dict(stat.metadata)) if stat.stored.etag == found.etag else None

    def _identified(self, found: StoredObject, metadata: dict[str, str]) -> Arrival:
        identity = identify(found.key, metadata, self._pattern)
        ref, priority = scan_ref_of(self._settings.bucket_scans, found), priority_of(metadata)
        if isinstance(identity, Unidentified):
            return Arrival(ref, found.key, None, identity.reason, priority)
        return Arrival(
            ref, identity.slide, SpecimenIdentity(identity.patient, identity.specimen), None, priority
        )

    def _register(self, arrivals: list[Arrival]) -> None:
        if not arrivals:
            return
        with self._database.transaction() as connection:
            fresh = register_many(connection, arrivals, max_attempts=self._settings.max_attempts)
        self._metrics.registered(len(fresh))

    def _run_step(self, step: Step, work: Callable[[], object]) -> None:
        """Run one step; a transient error fails this step only, and it is repeated in the next round."""
        try:
            work()
        except TransientError as error:
            structlog.get_logger().warning(
                "step_failed", step=step.value, code=error.code, sentence=error.sentence
            )
            self._metrics.failed(step, error.code)
        else:
            self._metrics.succeeded(step)


def _unsettled_now(found: StoredObject) -> _Unsettled:
    return _Unsettled(found.etag, found.size_bytes, monotonic())
