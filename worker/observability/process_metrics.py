"""What watcher and worker share in their metrics: names, a registry each, and what every process tells.

Names follow Prometheus: `leukoflow_` first, base units, `_total` on what only grows. A label is a word of a
fixed set, or a stable error code: never a scan, a patient, a key or a worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.observability.service_probe import ServiceProbe

NAMESPACE = "leukoflow"
RECENTLY_S = 30.0
"""A service that did not answer for so long is away."""


def new_registry(**told: str) -> CollectorRegistry:
    """Return a registry that tells of the process and of this release; `told` are further words on it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Info("build", "Release of leukoflow that runs.", namespace=NAMESPACE, registry=registry)
    build.info({"version": version("leukoflow"), **told})
    return registry


class ServiceCollector(Collector):
    """Tells of each service whether it answered lately."""

    def __init__(self, probes: Iterable[ServiceProbe[object]]) -> None:
        self._probes = tuple(probes)

    def collect(self) -> Iterable[Metric]:
        """Yield whether it is there, and its answers, with a line for each service."""
        up = GaugeMetricFamily(
            f"{NAMESPACE}_service_up",
            f"Whether the service answered within the last {RECENTLY_S:.0f} seconds.",
            labels=["service"],
        )
        answers = CounterMetricFamily(
            f"{NAMESPACE}_service_answers", "How often the service answered when asked.", labels=["service"]
        )
        for probe in self._probes:
            up.add_metric([probe.service], float(probe.silent_s <= RECENTLY_S))
            answers.add_metric([probe.service], probe.answers)
        yield up
        yield answers
