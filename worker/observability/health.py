"""Whether a process is live and ready, as reported at /live and /ready.

Live: a restart would not help. Ready: it can do its work now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from db.database import Database
from db.queue_statistics import QueueStatistics, ping, queue_statistics
from worker.observability.process_metrics import RECENT_S, ServiceCollector
from worker.observability.service_probe import ServiceProbe
from worker.observability.watchdog import Watchdog
from worker.observability.watcher_metrics import LedgerCollector, WatcherMetrics
from worker.queue.celery_app import CeleryQueue
from worker.queue.consumer_state import ConsumerState
from worker.queue.slots import Slots
from worker.storage.object_store import ObjectStore

PROBE_INTERVAL_S = 5.0
CHECKS_PER_PERIOD = 4
"""How often, at least, the watchdog checks within its time limit."""
WATCHER_STALLED_S = 900.0
"""A watcher that finishes neither a step nor a page of a listing within this time is stuck. A page of a slow
object store takes minutes; a step that fails because a service is unreachable counts as finished."""
HEALTH_PROBE_KEY = "leukoflow-health-probe"
"""No object has this key; a store that says so is working."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, with a sentence for people."""

    yes: bool
    sentence: str


class Health(Protocol):
    """The health of a process. Both methods return at once, from the last results."""

    def live(self) -> Verdict: ...

    def ready(self) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Services:
    """The services that a process uses."""

    database: Database
    store: ObjectStore
    queue: CeleryQueue


class WatcherHealth:
    """The health of a watcher."""

    def __init__(self, services: Services, metrics: WatcherMetrics) -> None:
        self._metrics = metrics
        self._ledger = ServiceProbe(
            "database", lambda: _queue_statistics(services.database), PROBE_INTERVAL_S
        )
        self._probes: tuple[ServiceProbe[object], ...] = (
            self._ledger,
            ServiceProbe("broker", services.queue.waiting_messages, PROBE_INTERVAL_S),
            ServiceProbe("store", lambda: services.store.exists(HEALTH_PROBE_KEY), PROBE_INTERVAL_S),
        )

    def live(self) -> Verdict:
        """Return whether it makes progress."""
        without_progress_s = self._metrics.without_progress_s
        if without_progress_s > WATCHER_STALLED_S:
            return Verdict(False, f"the watcher has made no progress for {without_progress_s:.0f} s")
        return Verdict(True, "the watcher makes progress")

    def ready(self) -> Verdict:
        """Return whether database, broker and store responded within the last seconds."""
        return _verdict_of(self._probes)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Return a context in which the services are probed, with the results in the metrics."""
        self._metrics.registry.register(LedgerCollector(self._ledger))
        with _probing(self._probes, self._metrics.registry):
            yield


class WorkerHealth:
    """The health of a worker, which is not ready before its models are loaded."""

    def __init__(self) -> None:
        self._work: _Work | None = None

    def live(self) -> Verdict:
        """Return whether it takes messages when some are waiting."""
        if self._work is None:
            return Verdict(True, "the models are being loaded")
        return self._work.live()

    def ready(self) -> Verdict:
        """Return whether the models are loaded, and database, broker and store are responding."""
        if self._work is None:
            return Verdict(False, "the models are being loaded")
        return self._work.ready()

    @property
    def stall_s(self) -> float:
        """Seconds for which messages waited and a slot was free, but none was taken."""
        return 0.0 if self._work is None else self._work.watchdog.idle_s

    @contextmanager
    def probing(
        self, work: MonitoredWorker, registry: CollectorRegistry, stalled: Callable[[], None]
    ) -> Iterator[None]:
        """Return a context in which the services are probed; `stalled` is called once if the worker hangs."""
        self._work = _Work(work, stalled)
        with _probing(self._work.probes, registry):
            yield


@dataclass(frozen=True, slots=True)
class MonitoredWorker:
    """A worker whose models are loaded, and after how long without work it counts as stalled."""

    services: Services
    slots: Slots
    consumer: ConsumerState
    stalled_after_s: float
    """0: never"""


class _Work:
    """The health of a worker whose models are loaded."""

    def __init__(self, work: MonitoredWorker, stalled: Callable[[], None]) -> None:
        self._consumer = work.consumer
        self._stalled = stalled
        self._reported = False
        check_s = (
            min(PROBE_INTERVAL_S, work.stalled_after_s / CHECKS_PER_PERIOD)
            if work.stalled_after_s
            else PROBE_INTERVAL_S
        )
        self.watchdog = Watchdog(work.slots, work.consumer, work.stalled_after_s, check_s)
        broker = ServiceProbe("broker", work.services.queue.waiting_messages, check_s, self._check)
        self.probes: tuple[ServiceProbe[object], ...] = (
            ServiceProbe("database", lambda: _ping(work.services.database), PROBE_INTERVAL_S),
            broker,
            ServiceProbe("store", lambda: work.services.store.exists(HEALTH_PROBE_KEY), PROBE_INTERVAL_S),
        )

    def live(self) -> Verdict:
        if self.watchdog.is_stalled:
            return Verdict(
                False, f"messages have waited for {self.watchdog.idle_s:.0f} s and this worker takes none"
            )
        return Verdict(True, "the worker takes messages")

    def ready(self) -> Verdict:
        live = self.live()
        if not live.yes:
            return live
        if self._consumer.is_ending:
            return Verdict(False, "the worker is shutting down")
        if not self._consumer.has_started:
            return Verdict(False, "the worker has not started to take messages")
        return _verdict_of(self.probes)

    def _check(self, messages: int | None) -> None:
        self.watchdog.check(messages)
        if self.watchdog.is_stalled and not self._reported:
            self._reported = True
            self._stalled()


def _verdict_of(probes: Iterable[ServiceProbe[object]]) -> Verdict:
    for probe in probes:
        if probe.since_answer_s > RECENT_S:
            return Verdict(False, f"the {probe.service} does not answer")
    return Verdict(True, "ready")


@contextmanager
def _probing(probes: Iterable[ServiceProbe[object]], registry: CollectorRegistry) -> Iterator[None]:
    registry.register(ServiceCollector(probes))
    for probe in probes:
        probe.start()
    try:
        yield
    finally:
        for probe in probes:
            probe.stop()


def _ping(database: Database) -> bool:
    with database.transaction() as connection:
        return ping(connection)


def _queue_statistics(database: Database) -> QueueStatistics:
    with database.transaction() as connection:
        return queue_statistics(connection)
