"""Everything that runs in a chaos plan: three servers behind wires, a watcher, workers, a supervisor."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit

import psycopg

import worker.embedded.child_process
from db.database import Database
from tests.chaos.clock import Clock, a_clock
from tests.chaos.fault_injection_worker import traps_folder
from tests.chaos.proxy import HOST, Proxy
from tests.chaos.refusals import prepare_refusals
from tests.support.brokers import at_port
from worker.embedded import EmbeddedSet, Principal, ServerName
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import prepare_services, start_process
from worker.settings import Settings, child_environment
from worker.storage.object_store import ObjectStore, open_object_store

WORKERS = 2
POISON_ATTEMPTS = 4
"""a scan that was unlucky thrice is not yet taken for one that kills its worker"""
STOP_S = 30.0

SHORT_WAITS = {
    "poll_s": "0.3",
    "settle_s": "0",
    "lease_s": "3",
    "heartbeat_s": "0.5",
    "reconcile_s": "0.5",
    "resend_after_s": "3",
    "max_attempts": str(POISON_ATTEMPTS),
    "worker_slots": "2",
    "log_level": "info",
}


class Role(StrEnum):
    """What a process of ours is there for; it comes to the servers as the principal of that name."""

    WATCHER = "watcher"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class _Post:
    """A place that one process at a time fills."""

    role: Role
    number: int

    @property
    def module(self) -> str:
        return "worker" if self.role is Role.WATCHER else "tests.chaos.fault_injection_worker"

    @property
    def command(self) -> str:
        return "watch" if self.role is Role.WATCHER else "worker"


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is, for the servers that PostgreSQL is one of, and for watcher and workers."""

    servers: Clock
    processes: Clock


@dataclass
class Laboratory:
    """The set at work. Main thread only."""

    servers: EmbeddedSet
    clocks: Clocks
    wires: Mapping[ServerName, Proxy]
    folder: Path
    direct: Settings
    """the services without wires: for who looks, and for who uploads"""
    queue: str
    environments: Mapping[Role, Mapping[str, str]]
    database: Database
    scans: ObjectStore
    results: ObjectStore
    posts: dict[_Post, Child] = field(default_factory=dict)
    starts: int = 0

    @property
    def spool(self) -> Path:
        """Where workers keep scans while they analyse them."""
        return self.folder / "spool"

    def children(self, role: Role) -> list[Child]:
        """Return the running processes of a role."""
        return [child for post, child in self.posts.items() if post.role is role and child.is_running()]

    def staff(self) -> None:
        """Start what is missing: what a supervisor does."""
        for post in [_Post(Role.WATCHER, 0), *(_Post(Role.WORKER, number) for number in range(WORKERS))]:
            child = self.posts.get(post)
            if child is None or not child.is_running():
                self.starts += 1
                log = self.folder / f"{post.role}-{post.number}.log"
                self.posts[post] = start_process(
                    post.command, self.environments[post.role], Path.cwd(), log, post.module
                )

    def dismiss(self) -> None:
        """Stop every process of ours."""
        for child in self.posts.values():
            child.ask_to_stop()
        for child in self.posts.values():
            child.wait(STOP_S)


@contextmanager
def laboratory_in(folder: Path) -> Iterator[Laboratory]:
    """Return a laboratory with an empty bucket and ledger, its processes not yet started."""
    with (
        a_clock() as of_servers,
        a_clock() as of_processes,
        _servers_go_by(of_servers),
        _equipped(folder, Clocks(of_servers, of_processes)) as laboratory,
    ):
        yield laboratory


@contextmanager
def _servers_go_by(clock: Clock) -> Iterator[None]:
    least = worker.embedded.child_process._least_environment
    with patch.object(
        worker.embedded.child_process, "_least_environment", lambda folder: least(folder) | clock.environment
    ):
        yield


@contextmanager
def _equipped(folder: Path, clocks: Clocks) -> Iterator[Laboratory]:
    servers = EmbeddedSet(folder / "servers")
    try:
        servers.start()
        direct = servers.settings()
        wires = {
            ServerName.POSTGRES: Proxy(_port(servers.database_url)),
            ServerName.VALKEY: Proxy(_port(servers.broker_url)),
            ServerName.SEAWEEDFS: Proxy(int(servers.s3_endpoint.rpartition(":")[2])),
        }
        prepare_services(direct)
        with owners_connection(servers) as connection:
            prepare_refusals(connection)
        (folder / "work").mkdir()
        queue = f"chaos-{uuid.uuid4().hex}"
        with Database(servers.database_url) as database:
            laboratory = Laboratory(
                servers=servers,
                clocks=clocks,
                wires=wires,
                folder=folder / "work",
                direct=direct,
                queue=queue,
                environments={
                    role: {
                        **_environment(servers, wires, Principal(role), queue, folder / "work" / "spool"),
                        **clocks.processes.environment,
                    }
                    for role in Role
                },
                database=database,
                scans=open_object_store(direct, direct.bucket_scans),
                results=open_object_store(direct, direct.bucket_results),
            )
            traps_folder(laboratory.spool).mkdir(parents=True)
            try:
                yield laboratory
            finally:
                laboratory.dismiss()
                for wire in wires.values():
                    wire.close()
    finally:
        servers.delete_outside()


def owners_connection(servers: EmbeddedSet) -> psycopg.Connection:
    """Return a connection to PostgreSQL as its owner, each statement a transaction."""
    url = urlunsplit(urlsplit(servers.database_url)._replace(scheme="postgresql"))
    return psycopg.connect(url, autocommit=True, application_name="chaos")


def _environment(
    servers: EmbeddedSet, wires: Mapping[ServerName, Proxy], principal: Principal, queue: str, spool: Path
) -> Mapping[str, str]:
    secrets = servers.secrets_of(principal)
    return child_environment(
        database_url=at_port(secrets["database_url"], wires[ServerName.POSTGRES].port),
        broker_url=at_port(secrets["broker_url"], wires[ServerName.VALKEY].port),
        s3_endpoint=f"{HOST}:{wires[ServerName.SEAWEEDFS].port}",
        s3_access_key=secrets["s3_access_key"],
        s3_secret_key=secrets["s3_secret_key"],
        s3_secure="false",
        queue=queue,
        spool_dir=str(spool),
        **SHORT_WAITS,
    )


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
