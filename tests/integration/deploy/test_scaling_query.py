"""What KEDA asks the ledger, by the query of the manifest and as the role of docs/running.md."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text

from db import ledger, results
from db.database import Database
from db.records import Failure
from db.schema import upgrade
from db.states import ScanState
from tests.integration.db.made_results import arrival, cells, claimed, registered, result
from tests.support.deployed import DEPLOY, scaled_objects

pytestmark = pytest.mark.services

QUERIES = {scaled["spec"]["triggers"][0]["metadata"]["query"] for scaled in scaled_objects().values()}
ROLE, DATABASE, PASSWORD = "leukoflow_scaler", "DATABASE leukoflow", "'a password'"
BROKEN = Failure("store_away", "the object store did not answer")


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[Database]:
    upgrade(database_url)
    with Database(database_url) as database:
        yield database


@pytest.fixture(scope="module")
def scaler(database: Database, database_url: str) -> Iterator[psycopg.Connection]:  # noqa: ARG001 - migrated
    """Return a connection of the role that the statements of the page make, under a name of its own."""
    (block,) = re.findall(
        r"```sql\n(.*?)```", (DEPLOY.parent / "docs" / "running.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert all(word in block for word in (ROLE, DATABASE, PASSWORD))
    name, password = f"scaler_{uuid.uuid4().hex}", uuid.uuid4().hex
    url = urlsplit(database_url)._replace(scheme="postgresql")
    statements = block.replace(DATABASE, f"DATABASE {url.path[1:]}").replace(ROLE, name)
    owner = urlunsplit(url)
    place = url.netloc.rpartition("@")[2]
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(statements.replace(PASSWORD, f"'{password}'"))
        with psycopg.connect(
            urlunsplit(url._replace(netloc=f"{name}:{password}@{place}")), autocommit=True
        ) as scaler:
            yield scaler
        connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def empty(database: Database) -> Database:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE patient, scan, model_bundle CASCADE"))
    return database


def asked(scaler: psycopg.Connection) -> int:
    (query,) = QUERIES
    ((number,),) = scaler.execute(query).fetchall()
    return number


@pytest.mark.usefixtures("empty")
def test_nothing_waits_in_an_empty_ledger(scaler: psycopg.Connection):
    assert asked(scaler) == 0


def test_what_waits_and_what_runs_counts_and_what_ended_or_stopped_does_not(
    empty: Database, scaler: psycopg.Connection
):
    steps = (
        ("received", lambda _: None, 1),
        ("queued", lambda scan: queue(empty, scan), 1),
        ("running", lambda scan: claimed(empty, scan), 1),
        ("running", lambda scan: lose(empty, scan), 1),
        ("retryable", lambda scan: give_back(empty, scan, delay_s=-1.0), 1),
        ("retryable", lambda scan: give_back(empty, scan, delay_s=3600.0), 0),
        ("quarantined", lambda scan: put_aside(empty, scan), 0),
        ("completed", lambda scan: complete(empty, scan), 0),
    )
    expected = 0
    for count, (state, move, counts) in enumerate(steps, start=1):
        (scan,) = registered(empty, arrival())
        assert asked(scaler) == expected + 1, "each comes in as received"
        move(scan)
        expected += counts
        assert (state_of(empty, scan), asked(scaler)) == (state, expected), f"step {count}"
    registered(empty, arrival(None))
    assert asked(scaler) == expected == 5
    assert {state for state, _, _ in steps} | {"unassigned"} == {state.value for state in ScanState}


def test_the_role_sees_no_patient_and_writes_nothing(scaler: psycopg.Connection):
    for refused in (
        "SELECT external_id FROM patient",
        "SELECT object_key FROM scan",
        "SELECT * FROM patient_differential",
        "UPDATE scan SET state = 'received'",
        "DELETE FROM scan",
        "CREATE TABLE mine (id int)",
    ):
        with pytest.raises(InsufficientPrivilege):
            scaler.execute(refused)


def queue(database: Database, scan: uuid.UUID) -> None:
    with database.transaction() as connection:
        ledger.mark_queued(connection, [scan])


def lose(database: Database, scan: uuid.UUID) -> None:
    claimed(database, scan)
    with database.transaction() as connection:
        connection.execute(
            text("UPDATE scan SET lease_expires_at = now() - interval '1 hour' WHERE id = :id"), {"id": scan}
        )


def give_back(database: Database, scan: uuid.UUID, delay_s: float) -> None:
    claim = claimed(database, scan)
    with database.transaction() as connection:
        ledger.release_for_retry(connection, claim, BROKEN, delay_s=delay_s)


def put_aside(database: Database, scan: uuid.UUID) -> None:
    claim = claimed(database, scan)
    with database.transaction() as connection:
        ledger.quarantine(connection, claim, BROKEN)


def complete(database: Database, scan: uuid.UUID) -> None:
    claim = claimed(database, scan)
    with database.transaction() as connection:
        results.save_result(connection, claim, result(cells(lymphocyte=1)), ())


def state_of(database: Database, scan: uuid.UUID) -> str:
    with database.transaction() as connection:
        return connection.execute(text("SELECT state FROM scan WHERE id = :id"), {"id": scan}).scalar_one()
