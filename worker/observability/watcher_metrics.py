"""The metrics of a watcher: its own steps, and what waits in the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from time import monotonic, time

from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db.queue_statistics import QueueStatistics
from db.states import ScanState
from worker.observability.process_metrics import NAMESPACE, RECENTLY_S, new_registry
from worker.observability.service_probe import ServiceProbe


class Step(StrEnum):
    """What a watcher does in a round."""

    SWEEP = "sweep"
    RECONCILE = "reconcile"
    DISPATCH = "dispatch"


class WatcherMetrics:
    """What one watcher did since it started."""

    def __init__(self) -> None:
        self.registry = registry = new_registry()
        self._moved_s = monotonic()
        self._done = Gauge(
            "watcher_step_success_timestamp_seconds",
            "When the step last went well; 0 where it never did.",
            ["step"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self._failed = Counter(
            "watcher_step_failures",
            "Steps that failed since a service was away, by its error code.",
            ["step", "code"],
            namespace=NAMESPACE,
            registry=registry,
        )
        for step in Step:
            self._done.labels(step.value)
        self._registered = Counter(
            "scans_registered",
            "New objects of the bucket that became rows of the ledger.",
            namespace=NAMESPACE,
            registry=registry,
        )
        self._sent = Counter(
            "messages_sent", "Messages sent to workers.", namespace=NAMESPACE, registry=registry
        )
        self._expired = Counter(
            "leases_expired",
            "Scans taken from workers that fell silent, by where they went.",
            ["state"],
            namespace=NAMESPACE,
            registry=registry,
        )
        for state in (ScanState.RETRYABLE, ScanState.QUARANTINED):
            self._expired.labels(state.value)

    def moved(self) -> None:
        """Note that the watcher is not stuck."""
        self._moved_s = monotonic()

    @property
    def without_progress_s(self) -> float:
        """Seconds since the watcher last moved."""
        return monotonic() - self._moved_s

    def succeeded(self, step: Step) -> None:
        """Note a step that went well."""
        self._done.labels(step.value).set(time())
        self.moved()

    def failed(self, step: Step, code: str) -> None:
        """Note a step that failed."""
        self._failed.labels(step.value, code).inc()
        self.moved()

    def registered(self, scans: int) -> None:
        """Note new rows of the ledger."""
        self._registered.inc(scans)

    def sent(self, messages: int) -> None:
        """Note messages that were sent."""
        self._sent.inc(messages)

    def expired(self, state: ScanState) -> None:
        """Note a lease that ran out, and where its scan went."""
        self._expired.labels(state.value).inc()


class LedgerCollector(Collector):
    """Tells what the ledger's probe last said: read at its own pace, however often somebody scrapes.

    What is older than RECENTLY_S is left out: no number is better than an old one.
    """

    def __init__(self, probe: ServiceProbe[QueueStatistics]) -> None:
        self._probe = probe

    def collect(self) -> Iterable[Metric]:
        """Yield what waits by priority, how long, and the scans by state."""
        queue_statistics = self._probe.answer
        if queue_statistics is None or self._probe.silent_s > RECENTLY_S:
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
            "How long the scan that waits longest has waited; 0 where none waits.",
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
