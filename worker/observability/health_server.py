"""The HTTP server of watcher and worker: /live, /ready and /metrics. It reads only the path of a request."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from pipeline.model.errors import UsageError
from worker.observability.health import Health, Verdict
from worker.settings import ServedSettings

REQUEST_TIMEOUT_S = 10.0
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # As in HTTPServer, but without resolving the host name, which may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "leukoflow", self.server_address[1]
        self.setup_environ()


class _ServerOverIpv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: probes come every few seconds."""


@contextmanager
def served(settings: ServedSettings, registry: CollectorRegistry, health: Health) -> Iterator[None]:
    """Return a context in which health and metrics are served, if the settings name a port.

    Raises: UsageError, where the port cannot be opened.
    """
    if settings.metrics_port is None:
        yield
        return
    kind = _ServerOverIpv6 if ":" in settings.metrics_host else _Server
    try:
        server = kind((settings.metrics_host, settings.metrics_port), _Handler)
    except OSError as error:
        raise UsageError(
            f"health and metrics cannot be served on {settings.metrics_host} port {settings.metrics_port}; "
            "set LEUKOFLOW_METRICS_HOST and LEUKOFLOW_METRICS_PORT to a free address and port",
            code="settings_invalid",
        ) from error
    server.set_app(_wsgi_app(registry, health))
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    structlog.get_logger().info("health_served", host=settings.metrics_host, port=server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _wsgi_app(registry: CollectorRegistry, health: Health) -> Wsgi:
    metrics = make_wsgi_app(registry)
    checks = {"/live": health.live, "/ready": health.ready}

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        if path not in checks:
            return _text(start, "404 Not Found", "the paths are /live, /ready and /metrics")
        verdict: Verdict = checks[path]()
        return _text(start, "200 OK" if verdict.yes else "503 Service Unavailable", verdict.sentence)

    return answer


def _text(start: Callable[..., Any], status: str, sentence: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{sentence}\n".encode()]
