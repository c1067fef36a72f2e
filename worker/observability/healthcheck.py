"""Asking the watcher or worker of this machine how it is: the probe of compose and Kubernetes.

`leukoflow-healthcheck` loads a fraction of what `leukoflow healthcheck` does, for probes every few seconds.
"""

from __future__ import annotations

import http.client
import sys

from pipeline.model.errors import UsageError
from worker.settings import ServedSettings, load

TIMEOUT_S = 5.0
MAX_BYTES = 1000
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # asked, not bound  # nosec B104


def asked(settings: ServedSettings, path: str) -> tuple[bool, str]:
    """Return whether the process said yes, and its sentence."""
    if not settings.metrics_port:
        raise UsageError(
            "LEUKOFLOW_METRICS_PORT is not set, so nothing is served that could be asked", code="not_served"
        )
    host = _EVERYWHERE.get(settings.metrics_host, settings.metrics_host)
    connection = http.client.HTTPConnection(host, settings.metrics_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        sentence = response.read(MAX_BYTES).decode("utf-8", "replace").strip()
        return response.status == http.client.OK, sentence
    except (OSError, http.client.HTTPException) as error:
        return False, f"nobody answers on {host} port {settings.metrics_port}: {type(error).__name__}"
    finally:
        connection.close()


def main() -> None:
    """Print what the process says of its life, or with `--ready` of its readiness; exit with 0 or 1."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--ready"]):
        print("usage: leukoflow-healthcheck [--ready]", file=sys.stderr)
        sys.exit(1)
    try:
        yes, sentence = asked(load(ServedSettings), "/ready" if arguments else "/live")
    except UsageError as error:
        yes, sentence = False, error.sentence
    print(sentence)
    sys.exit(0 if yes else 1)


if __name__ == "__main__":
    main()
