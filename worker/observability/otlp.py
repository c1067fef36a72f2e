"""OpenTelemetry traces, sent by OTLP over HTTP. The trace id of a scan is its scan id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from uuid import UUID

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode

from db.records import Claim
from pipeline.model.errors import LeukoflowError
from pipeline.runtime.analysis_monitor import StageSpans

SERVICE = "leukoflow-worker"
SEND_TIMEOUT_S = 5.0

_SCAN: ContextVar[UUID] = ContextVar("scan")


class _ScanIds(RandomIdGenerator):
    """Uses the scan id as trace id: all attempts of a scan are one trace, findable from the ledger."""

    def generate_trace_id(self) -> int:
        return _SCAN.get().int

    def is_trace_id_random(self) -> bool:
        return False


class OtlpTraces:
    """Sends spans in the background. If the collector is unreachable they are dropped; no scan waits."""

    def __init__(self, url: str, worker: str, ca_certificates: Path | None) -> None:
        self._provider = TracerProvider(
            resource=Resource({"service.name": SERVICE, "service.instance.id": worker}),
            id_generator=_ScanIds(),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(
            url,
            certificate_file=str(ca_certificates) if ca_certificates else None,
            timeout=SEND_TIMEOUT_S,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("leukoflow")

    @contextmanager
    def attempt(self, held: Claim) -> Iterator[None]:
        """Return a context with a span around the work on a claim."""
        token = _SCAN.set(held.scan_id)
        try:
            with self._span(
                "attempt",
                context.Context(),
                {
                    "leukoflow.scan_id": str(held.scan_id),
                    "leukoflow.attempt": held.attempt_number,
                    "leukoflow.priority": held.priority.value,
                    "leukoflow.waited_s": held.waited_s,
                },
            ):
                yield
        finally:
            _SCAN.reset(token)

    def stages(self) -> StageSpans:
        """Return the function that opens the spans of the stages of the current attempt."""
        parent = context.get_current()
        return lambda stage: self._span(stage.value, parent, {})

    def close(self) -> None:
        """Send the remaining spans and shut down."""
        self._provider.shutdown()

    @contextmanager
    def _span(
        self, name: str, parent: context.Context, attributes: dict[str, str | int | float]
    ) -> Iterator[None]:
        # OpenTelemetry would record exception messages, which may contain keys and rows.
        with self._tracer.start_as_current_span(
            name, parent, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _mark(span, error)
                raise


def _mark(span: trace.Span, error: BaseException) -> None:
    code = error.code if isinstance(error, LeukoflowError) else type(error).__qualname__
    span.set_status(Status(StatusCode.ERROR, code))
