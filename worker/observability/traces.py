"""Traces of scans, with spans for attempts and stages. Disabled unless a collector is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from db.records import Claim
from pipeline.model.errors import DeploymentError
from pipeline.runtime.analysis_monitor import StageSpans
from worker.settings import Settings


class Traces(Protocol):
    """Records attempts and stages. Several threads may use it at once."""

    def attempt(self, held: Claim) -> AbstractContextManager[None]:
        """Return a context with a span around the work on a claim; errors are recorded by code."""
        ...

    def stages(self) -> StageSpans:
        """Return the function that opens the spans of the stages of the current attempt, on any thread."""
        ...


class NoTraces:
    """Records nothing."""

    def attempt(self, _held: Claim) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def stages(self) -> StageSpans:
        """Return a function that returns contexts that do nothing."""
        return lambda _stage: nullcontext()


@contextmanager
def open_traces(settings: Settings, worker: str) -> Iterator[Traces]:
    """Return a context with the traces of a worker; the remaining spans are sent at its end.

    Raises: DeploymentError, where they are enabled and OpenTelemetry is not installed.
    """
    if not settings.trace_url:
        yield NoTraces()
        return
    try:
        from worker.observability.otlp import OtlpTraces  # an optional dependency
    except ImportError as error:
        raise DeploymentError(
            "traces need OpenTelemetry: pip install 'leukoflow[traces]', or unset LEUKOFLOW_TRACE_URL",
            code="traces_missing",
        ) from error
    traces = OtlpTraces(settings.trace_url, worker, settings.ca_certificates)
    try:
        yield traces
    finally:
        traces.close()
