"""TCP ports of the embedded set: chosen once, stored in the state folder, replaced if taken."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.model.errors import DeploymentError

LOOPBACK = "127.0.0.1"
# Each port is reserved together with the one GRPC_OFFSET above it, which SeaweedFS uses for gRPC by default.
# Both are below the range of ephemeral ports on Linux (32768 and up).
GRPC_OFFSET = 10_000
LOWEST, HIGHEST = 10_500, 22_000
MAX_TRIES = 200


class PortTaken(Exception):
    """A server found its port in use when it tried to bind it."""


class PortAllocation:
    """Ports by name. A name keeps its port over restarts, so that the URLs of clients stay valid."""

    def __init__(self, path: Path, fixed: Mapping[str, int]) -> None:
        self._path = path
        self._fixed = dict(fixed)
        self._ports = _stored(path) | self._fixed

    def __getitem__(self, name: str) -> int:
        return self._ports[name]

    def assign(self, names: Sequence[str]) -> None:
        """Assign a free port to every name; fixed and stored ones first."""
        for name in names:
            if name in self._fixed:
                _require_free(name, self._fixed[name])
            elif name not in self._ports or not is_free(self._ports[name]):
                self._ports[name] = self._unused_port()
        self._path.write_text(json.dumps(self._ports, indent=1, sort_keys=True))

    def replace(self, names: Sequence[str]) -> None:
        """Assign new ports to the names that are not fixed.

        Raises: DeploymentError, where all are fixed.
        """
        movable = [name for name in names if name not in self._fixed]
        if not movable:
            wanted = ", ".join(str(self._fixed[name]) for name in names)
            raise DeploymentError(f"port {wanted} is in use; free it or choose another", code="port_in_use")
        for name in movable:
            del self._ports[name]
        self.assign(movable)

    def _unused_port(self) -> int:
        given = {port + offset for port in self._ports.values() for offset in (0, GRPC_OFFSET)}
        for _ in range(MAX_TRIES):
            port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
            if not {port, port + GRPC_OFFSET} & given and is_free(port) and is_free(port + GRPC_OFFSET):
                return port
        raise DeploymentError(f"no free TCP port found between {LOWEST} and {HIGHEST}", code="no_free_port")


def is_free(port: int) -> bool:
    """Return whether the port of the loopback address is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _require_free(name: str, port: int) -> None:
    if not is_free(port):
        raise DeploymentError(
            f"port {port} for {name} is in use; free it or choose another", code="port_in_use"
        )


def _stored(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text())
        return {str(name): int(port) for name, port in stored.items()}
    except (ValueError, AttributeError, TypeError):
        # A damaged file does no harm: new ports are chosen.
        return {}
