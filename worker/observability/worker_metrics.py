"""The metrics of a worker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db.states import Priority
from pipeline.model.ports import Stage
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.concurrency.batcher import Load
from worker.observability.process_metrics import NAMESPACE, new_registry
from worker.queue.slots import Slots

STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
WAIT_BUCKETS_S = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)


class Ending(StrEnum):
    """How a claim ended, as recorded by its worker."""

    COMPLETED = "completed"
    QUARANTINED = "quarantined"
    RETRYABLE = "retryable"
    HANDED_BACK = "handed_back"
    LEASE_LOST = "lease_lost"


class WorkerMetrics:
    """Counters of one worker since its start, and its current state."""

    def __init__(self, slots: Slots) -> None:
        self.registry = registry = new_registry()
        self._running: set[AnalysisMonitor] = set()
        self._claims = Counter(
            "claims_ended",
            "Ended claims on scans, by outcome.",
            ["outcome"],
            namespace=NAMESPACE,
            registry=registry,
        )
        for ending in Ending:
            self._claims.labels(ending.value)
        self._failures = Counter(
            "failures",
            "Claims that ended without a result, by error code.",
            ["code"],
            namespace=NAMESPACE,
            registry=registry,
        )
        self._bytes = Counter(
            "scan_read_bytes",
            "Bytes of scans read from the object store.",
            namespace=NAMESPACE,
            registry=registry,
        )
        self._stages = Histogram(
            "stage_duration_seconds",
            "Duration of a stage of one analysis.",
            ["stage"],
            namespace=NAMESPACE,
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        for stage in Stage:
            self._stages.labels(stage.value)
        self._waits = Histogram(
            "wait_duration_seconds",
            "Time from a scan's arrival to its first claim.",
            ["priority"],
            namespace=NAMESPACE,
            buckets=WAIT_BUCKETS_S,
            registry=registry,
        )
        self._turnarounds = Histogram(
            "turnaround_duration_seconds",
            "Time from a scan's arrival to its result.",
            ["priority"],
            namespace=NAMESPACE,
            buckets=WAIT_BUCKETS_S,
            registry=registry,
        )
        for priority in Priority:
            self._waits.labels(priority.value)
            self._turnarounds.labels(priority.value)
        self._gauge(
            "worker_slots", "Number of scans that this worker can analyse at once.", lambda: slots.count
        )
        self._gauge("worker_busy_slots", "Number of scans that this worker is analysing.", lambda: slots.busy)
        self._gauge(
            "analysis_without_progress_seconds",
            "Longest time without progress of any running analysis; 0 if none runs.",
            self._longest_without_progress_s,
        )

    def _gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        gauge = Gauge(name, documentation, namespace=NAMESPACE, registry=self.registry)
        gauge.set_function(value)

    def report_health(self, ready: Callable[[], bool], idle_s: Callable[[], float]) -> None:
        """Report from now on whether the worker is ready, and for how long it has been stalled."""
        self._gauge("worker_ready", "Whether this worker can take and analyse scans.", ready)
        self._gauge(
            "worker_stall_seconds",
            "Time for which messages waited and this worker had a free slot but took none.",
            idle_s,
        )

    def claimed(self, priority: Priority, waited_s: float) -> None:
        """Record the first claim of a scan."""
        self._waits.labels(priority.value).observe(waited_s)

    def completed(self, priority: Priority, turnaround_s: float) -> None:
        """Record a completed claim."""
        self._claims.labels(Ending.COMPLETED.value).inc()
        self._turnarounds.labels(priority.value).observe(turnaround_s)

    def failed(self, ending: Ending, code: str) -> None:
        """Record a claim that ended without a result."""
        self._claims.labels(ending.value).inc()
        self._failures.labels(code).inc()

    def read(self, size_bytes: int) -> None:
        """Record bytes read from the object store."""
        self._bytes.inc(size_bytes)

    @contextmanager
    def observing(self, monitor: AnalysisMonitor) -> Iterator[None]:
        """Return a context around an analysis; at its end the durations of its stages are recorded."""
        self._running.add(monitor)
        try:
            yield
        finally:
            self._running.discard(monitor)
            for stage, seconds in monitor.timings_s:
                self._stages.labels(stage).observe(seconds)

    def _longest_without_progress_s(self) -> float:
        return max((monitor.without_progress_s for monitor in tuple(self._running)), default=0.0)


_OfLoad = tuple[str, str, Callable[[Load], float]]
_COUNTED: tuple[_OfLoad, ...] = (
    ("batches", "Batches run by the network.", lambda load: load.batches),
    ("items", "Pictures in those batches.", lambda load: load.items),
    ("busy_seconds", "Total duration of those batches, including overlaps.", lambda load: load.busy_s),
)
_SHOWN: tuple[_OfLoad, ...] = (
    ("batch_capacity_items", "Pictures that fit into a batch.", lambda load: load.max_batch),
    ("parallel_batches", "Batches that run at once.", lambda load: load.parallel_batches),
    ("waiting_items", "Pictures that wait for a batch.", lambda load: load.waiting_items),
)


class EngineCollector(Collector):
    """Collects the load of the networks.

    Utilisation is the rate of busy seconds over the parallel batches.
    """

    def __init__(self, loads: Callable[[], Mapping[str, Load]]) -> None:
        self._loads = loads

    def collect(self) -> Iterable[Metric]:
        """Yield the counters and gauges, for each network."""
        loads = self._loads()
        for name, documentation, total in _COUNTED:
            counter = CounterMetricFamily(f"{NAMESPACE}_engine_{name}", documentation, labels=["network"])
            for network, load in loads.items():
                counter.add_metric([network], total(load))
            yield counter
        for name, documentation, now in _SHOWN:
            gauge = GaugeMetricFamily(f"{NAMESPACE}_engine_{name}", documentation, labels=["network"])
            for network, load in loads.items():
                gauge.add_metric([network], now(load))
            yield gauge


class SpoolCollector(Collector):
    """Collects size and free space of the file system with the spool folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Yield size and free bytes; nothing if the folder cannot be read."""
        try:
            usage = shutil.disk_usage(self._folder)
        except OSError:
            return
        size = GaugeMetricFamily(f"{NAMESPACE}_spool_size_bytes", "Size of the spool's file system.")
        size.add_metric([], usage.total)
        yield size
        free = GaugeMetricFamily(f"{NAMESPACE}_spool_free_bytes", "Free bytes of the spool's file system.")
        free.add_metric([], usage.free)
        yield free
