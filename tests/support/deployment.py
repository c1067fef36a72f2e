"""A leukoflow of its own on the session's servers: buckets, ledger, queue, and its real processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit, urlunsplit

import psycopg
from sqlalchemy import select

from db.database import Database
from db.reads import counts_by_state, results_of_patient, scans
from db.records import PatientResult, ScanFilter, ScanRow
from db.states import ScanState
from db.tables import Patient, Scan, Specimen
from pipeline.model.errors import TransientError
from tests.support.log_check import note
from worker.embedded import EmbeddedSet, Principal
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import prepare_services, start_process
from worker.ingest.identification import META_PRIORITY
from worker.settings import Settings, child_environment, load, variable_of
from worker.storage.object_store import ObjectStore, open_object_store

ENDED = {ScanState.COMPLETED, ScanState.QUARANTINED, ScanState.UNASSIGNED}
POLL_S = 0.1
PRINCIPALS = {"watch": Principal.WATCHER, "worker": Principal.WORKER}
"""Processes come to the services with the rights that they have in production, and no more."""


@dataclass
class Deployment:
    """Watchers and workers that share one bucket and one ledger."""

    settings: Settings
    environment: Mapping[str, str]
    folder: Path
    database: Database
    store: ObjectStore
    servers: EmbeddedSet
    children: list[Child] = field(default_factory=list)

    def start(self, command: str) -> Child:
        log = self.folder / f"{command}-{len(self.children)}.log"
        principal = PRINCIPALS[command]
        child = start_process(command, self.environment_of(principal), self.folder, log)
        self.children.append(child)
        return child

    def environment_of(self, principal: Principal) -> dict[str, str]:
        """Return the environment of who comes to the services as the principal."""
        secrets = self.servers.secrets_of(principal)
        secrets.pop("broker_url", None)  # one password for all
        if "database_url" in secrets:
            login = urlsplit(secrets["database_url"]).netloc.rpartition("@")[0]
            parts = urlsplit(self.settings.database_url.get_secret_value())
            address = parts.netloc.rpartition("@")[2]
            secrets["database_url"] = urlunsplit(parts._replace(netloc=f"{login}@{address}"))
        return {**self.environment, **{variable_of(name): value for name, value in secrets.items()}}

    def drop(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        note([key, *(value for name, value in (metadata or {}).items() if name != META_PRIORITY)])
        self.store.put_bytes(key, body, "application/octet-stream", metadata)

    def rows(self, state: ScanState | None = None) -> list[ScanRow]:
        with self.database.transaction() as connection:
            return scans(connection, ScanFilter(state=state))

    def counts(self) -> dict[ScanState, int]:
        with self.database.transaction() as connection:
            return counts_by_state(connection)

    def results(self, patient: str) -> PatientResult | None:
        with self.database.transaction() as connection:
            return results_of_patient(connection, patient)

    def until(self, true: Callable[[], bool], deadline_s: float = 120.0) -> None:
        """Wait for something to become true; fails, with the ledger and the logs, where it does not."""
        until_s = monotonic() + deadline_s
        while not true():
            assert monotonic() < until_s, f"{self.counts()}\n{self.logs()[-4000:]}"
            sleep(POLL_S)

    def until_ended(self, expected: int, deadline_s: float = 120.0) -> None:
        """Wait until `expected` scans are in the ledger and none is on its way."""

        def ended() -> bool:
            counts = self.counts()
            return sum(counts.values()) == sum(counts[state] for state in ENDED) == expected

        self.until(ended, deadline_s)

    def note_identifiers(self) -> None:
        """Remember whom the ledger names: programs registered them as well."""
        named = (select(Patient.external_id), select(Specimen.external_id), select(Scan.object_key))
        with suppress(TransientError), self.database.transaction() as connection:
            for statement in named:
                note(connection.execute(statement).scalars())

    def logs(self) -> str:
        return logs_in(self.folder)

    def stop(self) -> None:
        for child in self.children:
            child.ask_to_stop()
        for child in self.children:
            child.wait(30)
        self.children.clear()


def logs_in(folder: Path) -> str:
    """Return what processes logged to the files of a folder."""
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))


@contextmanager
def deployment_on(servers: EmbeddedSet, folder: Path, **overrides: str) -> Iterator[Deployment]:
    """Return a deployment with an empty bucket and ledger; its processes are stopped at the end."""
    name = uuid.uuid4().hex
    base = servers.settings()
    database_url = _swapped(servers.database_url, f"/house_{name}")
    with psycopg.connect(
        urlunsplit(urlsplit(servers.database_url)._replace(scheme="postgresql")), autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE house_{name}")
    values = {
        "database_url": database_url,
        "broker_url": servers.broker_url,
        "s3_endpoint": base.s3_endpoint,
        "s3_access_key": base.s3_access_key.get_secret_value(),
        "s3_secret_key": base.s3_secret_key.get_secret_value(),
        "s3_secure": "false",
        "s3_region": base.s3_region,
        "bucket_scans": f"scans-{name}",
        "bucket_results": f"results-{name}",
        "queue": f"deployment-{name}",
        "spool_dir": str(folder),
        "engine": "onnxruntime",  # opens in a tenth of the time; other tests are of what runs the networks
        "poll_s": "0.2",
        "settle_s": "0",
        "reconcile_s": "0.5",
        **overrides,
    }
    settings = load(Settings, **values)
    prepare_services(settings)
    with Database(database_url) as database:
        deployment = Deployment(
            settings,
            child_environment(**values),
            folder,
            database,
            open_object_store(settings, settings.bucket_scans),
            servers,
        )
        try:
            yield deployment
        finally:
            deployment.stop()
            deployment.note_identifiers()


def _swapped(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=path))
