"""The trace of a scan, as a collector gets it from a real worker."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from db.states import ScanState
from pipeline.model.errors import DeploymentError
from pipeline.model.ports import Stage
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from worker.observability.traces import open_traces

pytestmark = pytest.mark.services

PATIENT = "P-TRACED-1"


class Collector(ThreadingHTTPServer):
    """Takes what is sent by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[Span]:
        return [
            span
            for body in list(self.bodies)
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


@pytest.fixture(scope="module")
def traced(embedded, tmp_path_factory, collector) -> Iterator[Deployment]:
    """Return a deployment whose worker has completed one scan and put one aside, and has ended."""
    with deployment_on(embedded, tmp_path_factory.mktemp("traced"), trace_url=collector.url) as deployment:
        deployment.drop(f"{PATIENT}/S-1/field.jpg", field_jpeg(7))
        deployment.drop(f"{PATIENT}/S-1/broken.jpg", b"no picture")
        deployment.start("watch")
        deployment.start("worker")
        deployment.until_ended(2)
        deployment.stop()
        yield deployment


def attempts_of(collector: Collector, state: ScanState, deployment: Deployment) -> list[Span]:
    (row,) = deployment.rows(state)
    return [
        span for span in collector.spans() if span.trace_id == row.scan_id.bytes and span.name == "attempt"
    ]


def test_a_trace_bears_the_id_of_its_scan_and_holds_its_stages(traced, collector):
    (attempt,) = attempts_of(collector, ScanState.COMPLETED, traced)
    within = [span for span in collector.spans() if span.parent_span_id == attempt.span_id]
    assert {Stage.SCALE, Stage.TILES, Stage.CLASSIFY} <= {span.name for span in within} <= set(Stage)
    for span in within:
        assert span.trace_id == attempt.trace_id
        assert attempt.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= attempt.end_time_unix_nano
    assert attempt.status.code == Status.STATUS_CODE_UNSET
    told = {entry.key: entry.value for entry in attempt.attributes}
    assert told["leukoflow.attempt"].int_value == 1


def test_an_attempt_that_failed_says_by_which_code_and_nothing_of_the_error(traced, collector):
    (attempt,) = attempts_of(collector, ScanState.QUARANTINED, traced)
    (row,) = traced.rows(ScanState.QUARANTINED)
    assert attempt.status.code == Status.STATUS_CODE_ERROR
    assert attempt.status.message == row.error_code
    assert not attempt.events


@pytest.mark.usefixtures("traced")
def test_no_trace_names_a_patient(collector):
    assert collector.bodies
    assert not any(PATIENT.encode() in body for body in collector.bodies)


def test_scans_do_not_wait_for_a_collector_that_is_away(embedded, tmp_path):
    with deployment_on(embedded, tmp_path, trace_url="http://127.0.0.1:9/v1/traces") as deployment:
        deployment.drop(f"{PATIENT}/S-2/field.jpg", field_jpeg(8))
        deployment.start("watch")
        deployment.start("worker")
        deployment.until_ended(1)
        assert deployment.counts()[ScanState.COMPLETED] == 1


def test_who_asks_for_traces_without_opentelemetry_is_told_what_to_install(traced, monkeypatch):
    monkeypatch.setitem(sys.modules, "worker.observability.otlp", None)
    with pytest.raises(DeploymentError, match=r"leukoflow\[traces\]"), open_traces(traced.settings, "w"):
        pass
