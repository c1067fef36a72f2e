"""The schema as PostgreSQL has it: versions, names, what it refuses."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from made_results import arrival, registered
from sqlalchemy import exc, text

from db import revision, schema
from db.database import Database
from db.tables import Base
from pipeline.model.errors import DeploymentError, TransientError

pytestmark = pytest.mark.services

NAMES = {
    "p": r"pk_{table}",
    "f": r"fk_{table}_\w+",
    "u": r"uq_{table}_\w+|uq_run_key",
    "c": r"ck_{table}_\w+",
    "n": r"{table}_\w+_not_null",  # PostgreSQL 18 names these itself
}


def test_an_upgrade_is_needed_once_and_changes_nothing_twice(database_url):
    with pytest.raises(DeploymentError) as refused:
        revision.require_current(database_url)
    assert refused.value.code == "schema_missing"
    # Two processes at once: the second waits, and finds nothing to do.
    script = "import sys; from db.schema import upgrade; upgrade(sys.argv[1])"
    both = [
        subprocess.Popen([sys.executable, "-c", script, database_url], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert revision.current_revision(database_url) == revision.head_revision()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(schema.upgrade, [database_url] * 4)) == {revision.head_revision()}
    revision.require_current(database_url)


@pytest.fixture
def at_revision(migrated):
    """Return a function that lets the database say that it has a revision, until the test ends."""

    def say(revision):
        with migrated.transaction() as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
            )

    yield say
    say(revision.head_revision())


def test_an_older_schema_is_refused(at_revision, database_url):
    at_revision("0001")
    with pytest.raises(DeploymentError) as refused:
        revision.require_current(database_url)
    assert refused.value.code == "schema_old"


def test_a_newer_schema_is_good_enough(at_revision, database_url):
    at_revision("9999")
    revision.require_current(database_url)


def test_the_migrations_make_the_tables_that_the_code_knows(database):
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_check_of_the_code_is_in_the_database(rows):
    known = {
        constraint.name
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if constraint.name is not None
    }
    there = {name for (name,) in rows("SELECT conname FROM pg_constraint WHERE contype IN ('c','p','u','f')")}
    assert known <= there


def test_constraints_are_named_by_the_convention(rows):
    found = rows(
        "SELECT conrelid::regclass::text, contype::text, conname FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass"
    )
    assert len(found) > 40
    strays = [row for row in found if not re.fullmatch(NAMES[row[1]].format(table=row[0]), row[2])]
    assert strays == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE event SET kind = 'other'", "DELETE FROM event", "TRUNCATE event"],
)
def test_the_event_log_is_append_only(database, rows, statement):
    registered(database, arrival())
    before = rows("SELECT count(*) FROM event")
    with pytest.raises(exc.IntegrityError, match="append-only"), database.transaction() as connection:
        connection.execute(text(statement))
    assert rows("SELECT count(*) FROM event") == before


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'lost'", "ck_scan_state"),
        ("priority = 'soon'", "ck_scan_priority"),
        ("state = 'running'", "ck_scan_running_has_claim"),
        ("state = 'completed'", "ck_scan_completed_has_run"),
        ("state = 'quarantined'", "ck_scan_stopped_has_reason"),
        ("specimen_id = NULL", "ck_scan_unassigned_has_no_specimen"),
        ("content_digest = 'no digest'", "ck_scan_content_digest"),
    ],
)
def test_a_row_that_cannot_be_is_refused(database, change, constraint):
    registered(database, arrival())
    with pytest.raises(exc.IntegrityError, match=constraint), database.transaction() as connection:
        connection.execute(text(f"UPDATE scan SET {change}"))


def test_a_database_that_is_away_is_transient(database_url):
    away = re.sub(r":\d+/", ":1/", database_url)
    with pytest.raises(TransientError):
        revision.current_revision(away)
    with (
        Database(away) as database,
        pytest.raises(TransientError) as failed,
        database.transaction() as connection,
    ):
        connection.execute(text("SELECT 1"))
    assert failed.value.code == "database_away"


def test_a_connection_cut_in_mid_transaction_is_transient_and_the_next_one_works(database, rows):
    with pytest.raises(TransientError) as failed, database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert failed.value.code == "database_away"
    assert rows("SELECT 1") == [(1,)]


def test_the_revisions_that_are_known_are_those_of_alembic():
    scripts = list(ScriptDirectory(str(revision.MIGRATIONS)).walk_revisions())
    assert revision.known_revisions() == {script.revision for script in scripts}
    assert revision.head_revision() == scripts[0].revision
