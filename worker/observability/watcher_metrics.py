"""The metrics of a watcher: its steps, and the waiting scans of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from time import monotonic, time

from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db.queue_statistics import QueueStatistics
from db.states import ScanState
from worker.observability.process_metrics import NAMESPACE, RECENT_S, new_registry
from worker.observability.service_probe import ServiceProbe


class Step(StrEnum):
    """The steps of each round of a watcher."""

    SWEEP = "sweep"
    RECONCILE = "reconcile"
    DISPATCH = "dispatch"


class WatcherMetrics:
    """Counters of one watcher since its start."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._progressed_s = monotonic()
        self._done = Gauge(
            "watcher_step_success_timestamp_seconds",
            "When the step last succeeded; 0 if it never did.",
            ["step"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self._failed = Counter(
            "watcher_step_failures",
            "Steps that failed because a service was unreachable, by error code.",
            ["step", "code"],
            namespace=NAMESPACE,
            registry=registry,
        )
        for step in Step:
            self._done.labels(step.value)
        self._registered = Counter(
            "scans_registered",
            "New objects of the bucket that were registered in the ledger.",
            namespace=NAMESPACE,
            registry=registry,
        )
        self._sent = Counter(
            "messages_sent", "Messages sent to workers.", namespace=NAMESPACE, registry=registry
        )
        self._expired = Counter(
            "leases_expired",
            "Expired leases, by the new state of the scan.",
            ["state"],
            namespace=NAMESPACE,
            registry=registry,
        )
        for state in (ScanState.RETRYABLE, ScanState.QUARANTINED):
            self._expired.labels(state.value)

    def progressed(self) -> None:
        """Record that the watcher made progress."""
        self._progressed_s = monotonic()

    @property
    def without_progress_s(self) -> float:
        """Seconds since the watcher last made progress."""
        return monotonic() - self._progressed_s

    def succeeded(self, step: Step) -> None:
        """Record a successful step."""
        self._done.labels(step.value).set(time())
        self.progressed()

    def failed(self, step: Step, code: str) -> None:
        """Record a failed step."""
        self._failed.labels(step.value, code).inc()
        self.progressed()

    def registered(self, scans: int) -> None:
        """Record new scans of the ledger."""
        self._registered.inc(scans)

    def sent(self, messages: int) -> None:
        """Record sent messages."""
        self._sent.inc(messages)

    def expired(self, state: ScanState) -> None:
        """Record an expired lease and the new state of its scan."""
        self._expired.labels(state.value).inc()


class LedgerCollector(Collector):
    """Collects the last result of the ledger's probe, whose interval does not depend on scrapes.

    Results older than RECENT_S are left out: no number is better than an outdated one.
    """

    def __init__(self, probe: ServiceProbe[QueueStatistics]) -> None:
        self._probe = probe

    def collect(self) -> Iterable[Metric]:
        """Yield waiting scans and their age by priority, and scans by state."""
        queue_statistics = self._probe.answer
        if queue_statistics is None or self._probe.since_answer_s > RECENT_S:
            return
        waiting = queue_statistics.waiting
        yield _gauge(
            "waiting_scans",
            "Scans that wait for a worker.",
            "priority",
            ((priority.value, one.scans) for priority, one in waiting.items()),
        )
        yield _gauge(
            "oldest_waiting_seconds",
            "Age of the oldest waiting scan; 0 if none waits.",
            "priority",
            ((priority.value, one.oldest_s) for priority, one in waiting.items()),
        )
        yield _gauge(
            "scans",
            "Scans in the ledger that are not completed.",
            "state",
            ((state.value, scans) for state, scans in queue_statistics.scans.items()),
        )


def _gauge(name: str, documentation: str, label: str, lines: Iterable[tuple[str, float]]) -> Metric:
    gauge = GaugeMetricFamily(f"{NAMESPACE}_{name}", documentation, labels=[label])
    for value, number in lines:
        gauge.add_metric([value], number)
    return gauge
