"""Metrics common to watcher and worker: the registry, process metrics, and the state of the services.

Names follow the Prometheus conventions. Label values come from a fixed set or are error codes: never a scan,
a patient, a key or a worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.observability.service_probe import ServiceProbe

NAMESPACE = "leukoflow"
RECENT_S = 30.0
"""A service that did not respond for this long counts as down."""


def new_registry(**labels: str) -> CollectorRegistry:
    """Return a registry with process metrics and build information; `labels` are added to the latter."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Info("build", "Running release of leukoflow.", namespace=NAMESPACE, registry=registry)
    build.info({"version": version("leukoflow"), **labels})
    return registry


class ServiceCollector(Collector):
    """Collects the state of each service."""

    def __init__(self, probes: Iterable[ServiceProbe[object]]) -> None:
        self._probes = tuple(probes)

    def collect(self) -> Iterable[Metric]:
        """Yield whether each service is up, and how often it responded."""
        up = GaugeMetricFamily(
            f"{NAMESPACE}_service_up",
            f"Whether the service responded within the last {RECENT_S:.0f} seconds.",
            labels=["service"],
        )
        answers = CounterMetricFamily(
            f"{NAMESPACE}_service_answers", "How often the service responded to a probe.", labels=["service"]
        )
        for probe in self._probes:
            up.add_metric([probe.service], float(probe.since_answer_s <= RECENT_S))
            answers.add_metric([probe.service], probe.answers)
        yield up
        yield answers
