"""PostgreSQL, Valkey and SeaweedFS together in one state folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.model.errors import DeploymentError
from worker.embedded.child_process import Server, require_main_thread, try_lock
from worker.embedded.credentials import Credentials, load_or_create, write_private
from worker.embedded.free_ports import PortAllocation, PortTaken
from worker.embedded.postgres import Postgres, delete_external_folder
from worker.embedded.principals import ROLE_OF, Principal
from worker.embedded.seaweedfs import REGION, SeaweedFs
from worker.embedded.state_folder import make_state_folder, written_to
from worker.embedded.valkey import Valkey
from worker.settings import Settings, child_environment, load

MAX_PORT_CHANGES = 5


class ServerName(StrEnum):
    """The servers of the set."""

    POSTGRES = "postgres"
    VALKEY = "valkey"
    SEAWEEDFS = "seaweedfs"


@dataclass(frozen=True, slots=True)
class FixedPorts:
    """Ports that the user chose; None: any free port."""

    postgres: int | None = None
    valkey: int | None = None
    s3: int | None = None


class EmbeddedSet:
    """Real servers on the loopback address. Their data stays in the state folder between runs."""

    def __init__(self, state: Path, fixed_ports: FixedPorts | None = None) -> None:
        self.state = state.absolute()
        self._fixed = fixed_ports or FixedPorts()
        self._owner_lock: int | None = None
        self._running: _Servers | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the three servers and wait until all are ready. Main thread only.

        Raises: DeploymentError, naming the log file, where one does not start; UsageError, where the state
        folder cannot be written; TransientError, where its disk is full.
        """
        make_state_folder(self.state)
        try:
            with written_to(self.state):
                self._take_ownership()
                (self.state / "logs").mkdir(mode=0o700, exist_ok=True)
                self._running = self._build()
                self._bring_up(self._running)
                self._write_settings_files()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all servers and wait for them. Does nothing if none runs."""
        servers = list(self._running or ())
        for server in servers:
            server.ask_to_stop()
        for server in servers:
            server.wait_stopped()
        self._running = None
        if self._owner_lock is not None:
            os.close(self._owner_lock)
            self._owner_lock = None

    def restart(self, name: ServerName) -> None:
        """Stop one server if it runs, and start it again on the same ports. Main thread only."""
        require_main_thread()
        server = self._servers().named(name)
        server.ask_to_stop()
        server.wait_stopped()
        server.launch()
        try:
            server.await_ready()
        except PortTaken as error:
            raise DeploymentError(
                f"{name} could not restart: another program is using its port", code="port_in_use"
            ) from error

    def kill(self, name: ServerName) -> None:
        """Kill -9 one server."""
        self._servers().named(name).kill()

    def pid(self, name: ServerName) -> int:
        """Return the process id of a server."""
        return self._servers().named(name).pid

    def delete_outside(self) -> None:
        """Stop, and delete the data outside the state folder. Call it before deleting the folder."""
        self.stop()
        delete_external_folder(self.state)

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL, with the password."""
        return self._servers().postgres.url

    @property
    def broker_url(self) -> str:
        """redis:// URL, with the password."""
        return self._servers().valkey.url

    @property
    def s3_endpoint(self) -> str:
        """host:port of the S3 gateway."""
        return self._servers().seaweedfs.endpoint

    def settings(self) -> Settings:
        """Return the settings of the environment with the services of this set."""
        return load(
            Settings, **self.secrets_of(None), s3_endpoint=self.s3_endpoint, s3_secure=False, s3_region=REGION
        )

    def secrets_of(self, principal: Principal | None) -> dict[str, str]:
        """Return the credentials of the principal (None: the owner) by settings field."""
        credentials = self._credentials()
        keys = credentials if principal is None else credentials.principals[principal]
        secrets = {"s3_access_key": keys.s3_access_key, "s3_secret_key": keys.s3_secret_key}
        if principal is None:
            secrets["database_url"] = self.database_url
        elif principal in ROLE_OF:
            secrets["database_url"] = self._servers().postgres.login_url(principal)
        if principal in (None, Principal.WATCHER, Principal.WORKER):
            secrets["broker_url"] = self.broker_url
        return secrets

    def environment(self, principal: Principal | None = None, **values: str) -> dict[str, str]:
        """Return the complete environment of a child process that uses this set.

        It logs in as the principal, or as the owner. `values` are further settings by field name. The secrets
        themselves are in files that only their owner can read.
        """
        return child_environment(
            secrets_dir=str(self._secrets_folder(principal)),
            s3_endpoint=self.s3_endpoint,
            s3_secure="false",
            s3_region=REGION,
            **values,
        )

    def _secrets_folder(self, principal: Principal | None) -> Path:
        return self.state / "secrets" / (principal or "")

    def _credentials(self) -> Credentials:
        return load_or_create(self.state / "secrets.json")

    def _take_ownership(self) -> None:
        lock = os.open(self.state / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_lock(lock):
            os.close(lock)
            raise DeploymentError(
                f"another process runs an embedded set in {self.state}; stop it or choose another folder",
                code="state_in_use",
            )
        self._owner_lock = lock

    def _build(self) -> _Servers:
        chosen = {
            "postgres": self._fixed.postgres,
            "valkey": self._fixed.valkey,
            "seaweedfs.s3": self._fixed.s3,
        }
        fixed = {name: port for name, port in chosen.items() if port is not None}
        ports = PortAllocation(self.state / "ports.json", fixed)
        ports.assign([*Postgres.port_names, *Valkey.port_names, *SeaweedFs.port_names])
        credentials = self._credentials()
        return _Servers(
            ports=ports,
            seaweedfs=SeaweedFs(self.state, ports, credentials),
            valkey=Valkey(self.state, ports, credentials),
            postgres=Postgres(self.state, ports, credentials),
        )

    def _bring_up(self, servers: _Servers) -> None:
        # SeaweedFS is the slowest to start, so it comes first; initdb runs meanwhile.
        for server in servers:
            server.launch()
        for server in servers:
            _await_on_some_port(server, servers.ports)

    def _write_settings_files(self) -> None:
        for principal in (None, *Principal):
            folder = self._secrets_folder(principal)
            folder.mkdir(mode=0o700, exist_ok=True)
            for name, value in self.secrets_of(principal).items():
                write_private(folder / name, value)

    def _servers(self) -> _Servers:
        if self._running is None:
            raise DeploymentError("the embedded set is not started", code="service_failed")
        return self._running


@dataclass(frozen=True, slots=True)
class _Servers:
    ports: PortAllocation
    seaweedfs: SeaweedFs
    valkey: Valkey
    postgres: Postgres

    def __iter__(self) -> Iterator[Server]:
        return iter((self.seaweedfs, self.valkey, self.postgres))

    def named(self, name: ServerName) -> Server:
        return next(server for server in self if server.name == name)


def _await_on_some_port(server: Server, ports: PortAllocation) -> None:
    for _ in range(MAX_PORT_CHANGES):
        try:
            server.await_ready()
            return
        except PortTaken:
            server.wait_stopped()
            ports.replace(server.port_names)
            server.launch()
    raise DeploymentError(f"{server.name} found no free port; log: {server.log_path}", code="no_free_port")
