"""TCP ports of the embedded set: found free once, remembered in the state folder, replaced where taken."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.model.errors import DeploymentError

LOOPBACK = "127.0.0.1"
# A port is taken together with the one TWIN_OFFSET above it, which SeaweedFS's workers dial unasked; both
# lie below the range from which Linux gives source ports to outgoing connections (32768 and up).
TWIN_OFFSET = 10_000
LOWEST, HIGHEST = 10_500, 22_000
MAX_TRIES = 200


class PortTaken(Exception):
    """A server found one of its ports in use between our look and its bind."""


class PortAllocation:
    """Ports by name. A name keeps its port over restarts, so that clients' URLs stay true."""

    def __init__(self, path: Path, fixed: Mapping[str, int]) -> None:
        self._path = path
        self._fixed = dict(fixed)
        self._ports = _remembered(path) | self._fixed

    def __getitem__(self, name: str) -> int:
        return self._ports[name]

    def assign(self, names: Sequence[str]) -> None:
        """Give every name a port that is free now; remembered and fixed ones first."""
        for name in names:
            if name in self._fixed:
                _require_free(name, self._fixed[name])
            elif name not in self._ports or not is_free(self._ports[name]):
                self._ports[name] = self._unused_port()
        self._path.write_text(json.dumps(self._ports, indent=1, sort_keys=True))

    def replace(self, names: Sequence[str]) -> None:
        """Give the names new ports, but for the fixed ones.

        Raises: DeploymentError, where all of them are fixed.
        """
        movable = [name for name in names if name not in self._fixed]
        if not movable:
            wanted = ", ".join(str(self._fixed[name]) for name in names)
            raise DeploymentError(f"port {wanted} is in use; free it or choose another", code="port_in_use")
        for name in movable:
            del self._ports[name]
        self.assign(movable)

    def _unused_port(self) -> int:
        given = {port + offset for port in self._ports.values() for offset in (0, TWIN_OFFSET)}
        for _ in range(MAX_TRIES):
            port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
            if not {port, port + TWIN_OFFSET} & given and is_free(port) and is_free(port + TWIN_OFFSET):
                return port
        raise DeploymentError(f"no free TCP port found between {LOWEST} and {HIGHEST}", code="no_free_port")


def is_free(port: int) -> bool:
    """Return whether a server could bind the port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection in TIME_WAIT does not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _require_free(name: str, port: int) -> None:
    if not is_free(port):
        raise DeploymentError(
            f"port {port}, asked for {name}, is in use; free it or choose another", code="port_in_use"
        )


def _remembered(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
        return {str(name): int(port) for name, port in stored.items()}
    except (ValueError, AttributeError, TypeError):
        # A half-written note costs nothing: ports are found again.
        return {}
