"""Queries the health of the watcher or worker on this machine, for the probes of compose and Kubernetes.

`leukoflow-healthcheck` imports far less than `leukoflow healthcheck`, because probes run every few seconds.
"""

from __future__ import annotations

import http.client
import sys

from pipeline.model.errors import UsageError
from worker.settings import ServedSettings, load

TIMEOUT_S = 5.0
MAX_BYTES = 1000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # connected to, not bound  # nosec B104


def query(settings: ServedSettings, path: str) -> tuple[bool, str]:
    """Return the verdict of the process, and its sentence."""
    if not settings.metrics_port:
        raise UsageError(
            "LEUKOFLOW_METRICS_PORT is not set, so there is no health to query", code="not_served"
        )
    host = _EVERYWHERE.get(settings.metrics_host, settings.metrics_host)
    connection = http.client.HTTPConnection(host, settings.metrics_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        sentence = response.read(MAX_BYTES).decode("utf-8", "replace").strip()
        return response.status == http.client.OK, sentence
    except (OSError, http.client.HTTPException) as error:
        return False, f"nothing answers on {host} port {settings.metrics_port}: {type(error).__name__}"
    finally:
        connection.close()


def main() -> None:
    """Print whether the process is live, or with `--ready` whether it is ready; exit with 0 or 1."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--ready"]):
        print("usage: leukoflow-healthcheck [--ready]", file=sys.stderr)
        sys.exit(1)
    try:
        yes, sentence = query(load(ServedSettings), "/ready" if arguments else "/live")
    except UsageError as error:
        yes, sentence = False, error.sentence
    print(sentence)
    sys.exit(0 if yes else 1)


if __name__ == "__main__":
    main()
