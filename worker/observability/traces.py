"""A trace of each scan: its attempts, their stages, how long each took. None where no collector is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from db.records import Claim
from pipeline.model.errors import DeploymentError
from pipeline.runtime.analysis_monitor import StageSpans
from worker.settings import Settings


class Traces(Protocol):
    """Hears of attempts and stages. Several threads may tell at once."""

    def attempt(self, held: Claim) -> AbstractContextManager[None]:
        """Return a context that spans the work on a claim; an error that passes is noted by its code."""
        ...

    def stages(self) -> StageSpans:
        """Return what spans the stages of the attempt of this thread, whichever thread they run on."""
        ...


class NoTraces:
    """Traces that nobody wants."""

    def attempt(self, _held: Claim) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def stages(self) -> StageSpans:
        """Return what gives contexts that do nothing."""
        return lambda _stage: nullcontext()


@contextmanager
def open_traces(settings: Settings, worker: str) -> Iterator[Traces]:
    """Return the traces of a worker; what is not yet sent is sent at the end.

    Raises: DeploymentError, where they are asked for and OpenTelemetry is not installed.
    """
    if not settings.trace_url:
        yield NoTraces()
        return
    try:
        from worker.observability.otlp import OtlpTraces  # an extra
    except ImportError as error:
        raise DeploymentError(
            "traces need OpenTelemetry: pip install 'leukoflow[traces]', or set no LEUKOFLOW_TRACE_URL",
            code="traces_missing",
        ) from error
    traces = OtlpTraces(settings.trace_url, worker, settings.ca_certificates)
    try:
        yield traces
    finally:
        traces.close()
