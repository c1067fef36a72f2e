"""Whether a process is live and ready: what it answers at /live and /ready.

Live: starting it anew would not help. Ready: it could do its work now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from db.database import Database
from db.queue_statistics import QueueStatistics, ping, queue_statistics
from worker.observability.process_metrics import RECENTLY_S, ServiceCollector
from worker.observability.service_probe import ServiceProbe
from worker.observability.watchdog import Watchdog
from worker.observability.watcher_metrics import LedgerCollector, WatcherMetrics
from worker.queue.celery_app import CeleryQueue
from worker.queue.consumer_state import ConsumerState
from worker.queue.slots import Slots
from worker.storage.object_store import ObjectStore

PROBE_INTERVAL_S = 5.0
LOOKS = 4
"""So often at least does the watchdog look within the time that it grants."""
WATCHER_STILL_S = 900.0
"""A watcher that does not get from one step, or one page of a listing, to the next for so long is stuck. A
page of a slow object store takes minutes; where a service is away a step fails, and that is a step."""
PROBE_KEY = "leukoflow-asks-whether-the-store-answers"
"""No object has this key. That the store says so is the answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, and a sentence for whoever reads it."""

    yes: bool
    sentence: str


class Health(Protocol):
    """What a process says of itself. Answers at once, from what is known."""

    def live(self) -> Verdict: ...

    def ready(self) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What a process works with."""

    database: Database
    store: ObjectStore
    queue: CeleryQueue


class WatcherHealth:
    """The health of a watcher. Its questions are asked while it is open."""

    def __init__(self, services: Services, metrics: WatcherMetrics) -> None:
        self._metrics = metrics
        self._ledger = ServiceProbe(
            "database", lambda: _queue_statistics(services.database), PROBE_INTERVAL_S
        )
        self._probes: tuple[ServiceProbe[object], ...] = (
            self._ledger,
            ServiceProbe("broker", services.queue.waiting_messages, PROBE_INTERVAL_S),
            ServiceProbe("store", lambda: services.store.exists(PROBE_KEY), PROBE_INTERVAL_S),
        )

    def live(self) -> Verdict:
        """Whether it gets on."""
        without_progress_s = self._metrics.without_progress_s
        if without_progress_s > WATCHER_STILL_S:
            return Verdict(False, f"the watcher has not moved for {without_progress_s:.0f} s")
        return Verdict(True, "the watcher moves")

    def ready(self) -> Verdict:
        """Whether database, broker and store answered lately."""
        return _answered(self._probes)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Return a context in which the services are asked, and what they say is told to the metrics."""
        self._metrics.registry.register(LedgerCollector(self._ledger))
        with _probing(self._probes, self._metrics.registry):
            yield


class WorkerHealth:
    """The health of a worker: live and not ready, until it is told with what it works."""

    def __init__(self) -> None:
        self._work: _Work | None = None

    def live(self) -> Verdict:
        """Whether it takes work while work waits."""
        if self._work is None:
            return Verdict(True, "the models are being loaded")
        return self._work.live()

    def ready(self) -> Verdict:
        """Whether the models are loaded, and database, broker and store answered lately."""
        if self._work is None:
            return Verdict(False, "the models are being loaded")
        return self._work.ready()

    @property
    def stall_s(self) -> float:
        """Seconds for which work waited and none was taken, though a slot was free."""
        return 0.0 if self._work is None else self._work.watchdog.idle_s

    @contextmanager
    def asking(
        self, work: WorkerUnderWatch, registry: CollectorRegistry, stalled: Callable[[], None]
    ) -> Iterator[None]:
        """Return a context in which the services are asked; `stalled` is called once, where it hangs."""
        self._work = _Work(work, stalled)
        with _probing(self._work.probes, registry):
            yield


@dataclass(frozen=True, slots=True)
class WorkerUnderWatch:
    """What a worker works with, once its models are loaded, and how patient one is with it."""

    services: Services
    slots: Slots
    consumer: ConsumerState
    stalled_after_s: float
    """0: for ever"""


class _Work:
    """The health of a worker whose models are loaded."""

    def __init__(self, work: WorkerUnderWatch, stalled: Callable[[], None]) -> None:
        self._consumer = work.consumer
        self._stalled = stalled
        self._told = False
        look_s = (
            min(PROBE_INTERVAL_S, work.stalled_after_s / LOOKS) if work.stalled_after_s else PROBE_INTERVAL_S
        )
        self.watchdog = Watchdog(work.slots, work.consumer, work.stalled_after_s, look_s)
        broker = ServiceProbe("broker", work.services.queue.waiting_messages, look_s, self._look)
        self.probes: tuple[ServiceProbe[object], ...] = (
            ServiceProbe("database", lambda: _asked(work.services.database), PROBE_INTERVAL_S),
            broker,
            ServiceProbe("store", lambda: work.services.store.exists(PROBE_KEY), PROBE_INTERVAL_S),
        )

    def live(self) -> Verdict:
        if self.watchdog.is_stalled:
            return Verdict(
                False, f"work has waited for {self.watchdog.idle_s:.0f} s and this worker takes none of it"
            )
        return Verdict(True, "the worker takes what waits")

    def ready(self) -> Verdict:
        live = self.live()
        if not live.yes:
            return live
        if self._consumer.is_ending:
            return Verdict(False, "the worker is ending")
        if not self._consumer.has_begun:
            return Verdict(False, "the worker has not begun to take messages")
        return _answered(self.probes)

    def _look(self, messages: int | None) -> None:
        self.watchdog.look(messages)
        if self.watchdog.is_stalled and not self._told:
            self._told = True
            self._stalled()


def _answered(probes: Iterable[ServiceProbe[object]]) -> Verdict:
    for probe in probes:
        if probe.silent_s > RECENTLY_S:
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


def _asked(database: Database) -> bool:
    with database.transaction() as connection:
        return ping(connection)


def _queue_statistics(database: Database) -> QueueStatistics:
    with database.transaction() as connection:
        return queue_statistics(connection)
