"""Who may do what: the roles on the real server, each by a login of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from made_results import arrival, cells, claimed, digest_of, registered, result
from sqlalchemy import exc, text

from db import ledger, reads, registration, results, schema
from db.backoff import Backoff
from db.database import Database
from db.records import Failure, Progress, ScanFilter, SpecimenIdentity
from db.roles import GRANTS, TABLES, VIEWS, Role
from db.states import ScanState
from pipeline.model.errors import DeploymentError
from tests.support.revisions import bring_down_to
from worker.embedded import EmbeddedSet, Principal

AT_ONCE = Backoff(0.0)
pytestmark = [pytest.mark.services, pytest.mark.usefixtures("database")]

RESULTS = ("run", "cell", "differential", "artefact")
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
CHANGES = (
    "INSERT INTO {table} DEFAULT VALUES",
    "UPDATE {table} SET {column} = {column}",
    "DELETE FROM {table}",
    "TRUNCATE {table} CASCADE",
    "ALTER TABLE {table} ADD COLUMN mine int",
    "DROP TABLE {table} CASCADE",
    "CREATE INDEX ON {table} ({column})",
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
)
# A column that no role of a process may write.
COLUMNS = {
    "alembic_version": "version_num",
    "artefact": "sha256",
    "attempt": "worker",
    "cell": "cell_class",
    "differential": "count",
    "event": "detail",
    "model_bundle": "digest",
    "patient": "external_id",
    "run": "status",
    "scan": "object_key",
    "specimen": "external_id",
}
PEOPLE_AND_PROCESSES = (
    Principal.WATCHER,
    Principal.WORKER,
    Principal.READER,
    Principal.CLERK,
    Principal.KEEPER,
)

As = Callable[[Principal], Database]


def plain(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(scheme="postgresql"))


def swapped(url: str, **parts: str) -> str:
    return urlunsplit(urlsplit(url)._replace(**parts))


@pytest.fixture(scope="module")
def granted(database_url: str) -> str:
    """Return the URL of a database whose roles have their grants."""
    schema.upgrade(database_url)
    schema.apply_roles(database_url)
    return database_url


@pytest.fixture
def as_(granted: str, embedded: EmbeddedSet) -> Iterator[As]:
    """Return a function from a principal to the database as it is to them."""
    opened: list[Database] = []

    def login(principal: Principal) -> Database:
        url = embedded.secrets_of(principal)["database_url"]
        opened.append(Database(swapped(url, path=urlsplit(granted).path)))
        return opened[-1]

    yield login
    for one in opened:
        one.close()


@pytest.fixture
def migrator(granted: str) -> Iterator[str]:
    """Return the URL of a login that is a migrator and nothing else."""
    name = f"migrator_{uuid.uuid4().hex}"
    schema.add_login(granted, name, Role.MIGRATOR, "its password")
    address = urlsplit(granted).netloc.rpartition("@")[2]
    yield swapped(granted, netloc=f"{name}:its%20password@{address}")
    with psycopg.connect(plain(granted), autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}")


def refused(database: Database, statement: str) -> bool:
    """Return whether the database says that this user may not; any other outcome than done raises."""
    try:
        with database.transaction() as connection:
            connection.execute(text(statement))
    except DeploymentError as error:
        return error.code == "database_refused"
    return False


def allowed_of(database: Database, statements: list[str]) -> list[str]:
    return [statement for statement in statements if not refused(database, statement)]


def changes(*allowed: str) -> list[str]:
    """Return a change of every kind to every table, but for those that are allowed."""
    every = [change.format(table=table, column=COLUMNS[table]) for table in TABLES for change in CHANGES]
    assert set(allowed) <= set(every)
    return [change for change in every if change not in allowed]


def inserts(*tables: str) -> list[str]:
    return [f"INSERT INTO {table} DEFAULT VALUES" for table in tables]


def test_the_columns_of_this_file_are_all_tables():
    assert set(COLUMNS) == set(TABLES)


def test_a_reader_reads_everything_but_the_event_log(as_):
    registered(as_(Principal.WATCHER), arrival("P-1"))
    reader = as_(Principal.READER)
    with reader.transaction() as connection:
        assert [row.patient for row in reads.scans(connection, ScanFilter())] == ["P-1"]
        assert reads.counts_by_state(connection)[ScanState.RECEIVED] == 1
        assert reads.results_of_patient(connection, "P-1").n_slides_pooled == 0
        for table in {*TABLES, *VIEWS} - {"event"}:
            connection.execute(text(f"SELECT count(*) FROM {table}"))
    assert refused(reader, "SELECT count(*) FROM event")


def test_a_reader_can_write_nothing(as_):
    reader = as_(Principal.READER)
    statements = [
        *changes(),
        "CREATE TABLE mine (x int)",
        "CREATE TEMPORARY TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/mine'",
        "SELECT pg_read_file('/etc/hostname')",
        "SET session_replication_role = replica",
        "SET ROLE leukoflow_worker",
        "SET ROLE leukoflow_migrator",
        "CREATE ROLE mine",
    ]
    assert allowed_of(reader, statements) == []


def test_a_reader_adds_to_the_event_log_that_it_read_and_nothing_else(as_, rows):
    registered(as_(Principal.WATCHER), arrival("P-1"))
    before = rows("SELECT count(*) FROM event")[0][0]
    reader = as_(Principal.READER)
    with reader.transaction() as connection:
        found = reads.results_of_patient(connection, "P-1")
        reads.record_results_read(connection, found.patient_id, reader="x" * 1000, purpose="y" * 1000)
    written = rows("SELECT kind, detail, db_user, scan_id FROM event ORDER BY id OFFSET :n", n=before)
    detail = {"patient_id": str(found.patient_id), "reader": "x" * 200, "purpose": "y" * 200}
    assert written == [("results_read", detail, "reader", None)]
    forged = "INSERT INTO event (kind, detail) VALUES ('results_read', '{}')"
    assert refused(reader, forged)


def test_no_search_path_leads_the_function_elsewhere(as_, rows):
    before = rows("SELECT count(*) FROM event")[0][0]
    with as_(Principal.READER).transaction() as connection:
        connection.execute(text("SET LOCAL search_path = pg_temp, information_schema"))
        connection.execute(text("SELECT public.record_results_read(NULL, 'r', 'p')"))
    assert rows("SELECT count(*) FROM event")[0][0] == before + 1


@pytest.mark.parametrize("principal", PEOPLE_AND_PROCESSES)
def test_nobody_rewrites_the_event_log_or_says_when_and_by_whom_it_was_written(as_, principal):
    somebody = as_(principal)
    registered(as_(Principal.WATCHER), arrival())
    statements = [
        "UPDATE event SET kind = 'other'",
        "UPDATE event SET db_user = 'other'",
        "DELETE FROM event",
        "TRUNCATE event",
        "INSERT INTO event (kind, at) VALUES ('other', now() - interval '1 day')",
        "INSERT INTO event (kind, db_user) VALUES ('other', 'somebody else')",
        "INSERT INTO event (id, kind) OVERRIDING SYSTEM VALUE VALUES (1, 'other')",
        "ALTER TABLE event DISABLE TRIGGER ALL",
    ]
    assert allowed_of(somebody, statements) == []


@pytest.mark.parametrize("statement", ["UPDATE event SET kind = 'x'", "DELETE FROM event", "TRUNCATE event"])
@pytest.mark.parametrize("who", ["the migrator", "a superuser that says it is a replica"])
def test_the_event_log_is_append_only_for_the_strongest_too(as_, migrator, granted, who, statement):
    registered(as_(Principal.WATCHER), arrival())
    with psycopg.connect(plain(migrator if who == "the migrator" else granted)) as connection:
        if who != "the migrator":
            connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            connection.execute(statement)


def test_every_event_says_as_whom_its_author_logged_in(as_, rows):
    before = rows("SELECT count(*) FROM event")[0][0]
    (scan_id,) = registered(as_(Principal.WATCHER), arrival())
    claimed_as_in_production(as_, scan_id)
    authors = rows("SELECT kind, db_user FROM event ORDER BY id OFFSET :n", n=before)
    assert authors == [("registered", "watcher"), ("queued", "watcher"), ("claimed", "worker")]


def test_a_watcher_writes_no_results_and_reads_none(as_):
    watcher = as_(Principal.WATCHER)
    statements = [
        *changes(*inserts("patient", "specimen", "scan", "event")),
        *(f"SELECT count(*) FROM {table}" for table in (*RESULTS, *VIEWS, "model_bundle", "event")),
        *(f"UPDATE scan SET {column} = NULL" for column in ("current_run_id", "completed_at", "specimen_id")),
        "UPDATE scan SET content_digest = NULL",
        "INSERT INTO attempt (scan_id, number, worker) VALUES (gen_random_uuid(), 1, 'w')",
    ]
    assert allowed_of(watcher, statements) == []


def test_a_worker_touches_no_more_than_its_scan_and_what_it_found(as_):
    worker = as_(Principal.WORKER)
    # Results may be added, not changed; identities are no business of a worker's.
    statements = [
        *changes(*inserts("attempt", "model_bundle", "event", *RESULTS)),
        "SELECT external_id FROM patient",
        "SELECT external_id FROM specimen",
        *(f"SELECT count(*) FROM {table}" for table in ("cell", "differential", "artefact", *VIEWS, "event")),
        "UPDATE scan SET specimen_id = specimen_id",
        "UPDATE scan SET priority = 'stat'",
        "UPDATE scan SET max_attempts = 100",
        "UPDATE model_bundle SET name = 'other'",
        "INSERT INTO scan (bucket) VALUES ('mine')",
        "SELECT record_results_read(NULL, 'r', 'p')",
    ]
    assert allowed_of(worker, statements) == []


def test_a_keeper_deletes_and_writes_nothing_new(as_):
    deletes = [f"DELETE FROM {table}" for table in (*RESULTS, "attempt", "scan", "specimen", "patient")]
    assert allowed_of(as_(Principal.KEEPER), changes(*inserts("event"), *deletes)) == []


def test_a_clerk_writes_no_results_and_deletes_nothing(as_):
    assert allowed_of(as_(Principal.CLERK), changes(*inserts("patient", "specimen", "event"))) == []


def claimed_as_in_production(as_: As, scan_id: uuid.UUID, lease_s: float = 60.0):
    with as_(Principal.WATCHER).transaction() as connection:
        due = ledger.due_for_enqueue(connection, resend_after_s=0.0)
        ledger.mark_queued(connection, [scan.scan_id for scan in due])
    with as_(Principal.WORKER).transaction() as connection:
        return ledger.claim(connection, scan_id, worker="w", lease_s=lease_s)


def test_watcher_and_worker_can_do_all_their_work(as_):
    watcher, worker = as_(Principal.WATCHER), as_(Principal.WORKER)
    first, second, retried, given, bad = registered(watcher, *(arrival(f"P-{n}") for n in range(5)))
    with worker.transaction() as connection:
        results.register_bundle(connection, digest_of("bundle"), "made by hand", "{}")
    for scan_id in (first, second):
        claim = claimed_as_in_production(as_, scan_id)
        with worker.transaction() as connection:
            assert ledger.heartbeat(connection, claim, Progress(1, 8, 0))
            ledger.record_digest(connection, claim, digest_of("content"))
            saved = results.save_result(connection, claim, result(cells(lymphocyte=3)), ())
        assert saved.is_new
    failure = Failure("c", "r")
    for scan_id, move in (
        (retried, lambda c, claim: ledger.release_for_retry(c, claim, failure, delay_s=3600.0)),
        (given, lambda c, claim: ledger.hand_back(c, claim)),
        (bad, lambda c, claim: ledger.quarantine(c, claim, failure)),
    ):
        claim = claimed_as_in_production(as_, scan_id)
        with worker.transaction() as connection:
            move(connection, claim)
    claim = claimed_as_in_production(as_, given, lease_s=0.0)
    with watcher.transaction() as connection:
        assert [gone.scan_id for gone in ledger.expire_leases(connection, backoff=AT_ONCE)] == [claim.scan_id]
    with as_(Principal.READER).transaction() as connection:
        states = {row.scan_id: row.state for row in reads.scans(connection, ScanFilter())}
        twins = {row.scan_id: row.same_content_as for row in reads.scans(connection, ScanFilter())}
        run = reads.results_of_patient(connection, "P-0").slides[0].run
        assert len(reads.cells_of_run(connection, run.run_id)) == 3
    assert states == {
        first: ScanState.COMPLETED,
        second: ScanState.COMPLETED,
        retried: ScanState.RETRYABLE,
        given: ScanState.RETRYABLE,
        bad: ScanState.QUARANTINED,
    }
    assert (twins[first], twins[second]) == (second, first)


def test_a_clerk_assigns_and_requeues_and_reads_as_a_reader_does(as_):
    watcher, clerk = as_(Principal.WATCHER), as_(Principal.CLERK)
    nobodys, done = registered(watcher, arrival(None), arrival("P-1"))
    claim = claimed_as_in_production(as_, done)
    with as_(Principal.WORKER).transaction() as connection:
        results.save_result(connection, claim, result(cells(lymphocyte=1)), ())
    with clerk.transaction() as connection:
        assert registration.assign(connection, nobodys, SpecimenIdentity("P-2", "S-1")) is ScanState.RECEIVED
        assert registration.assign(connection, done, SpecimenIdentity("P-3", "S-1")) is ScanState.COMPLETED
        registration.requeue(connection, done)
        found = reads.results_of_patient(connection, "P-3")
        reads.record_results_read(connection, found.patient_id, reader="r", purpose="p")
    assert [slide.scan_id for slide in found.slides] == [done]


def grants_there(database: Database) -> set[tuple[str, str, str, str]]:
    """(role, privilege, table, column) of what the groups may do, column by column."""
    question = text("""
        SELECT role, privilege, relname, attname
        FROM unnest(CAST(:roles AS text[])) role, unnest(CAST(:privileges AS text[])) privilege,
             pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
          AND CASE WHEN privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                   THEN has_column_privilege(role, pg_class.oid, attnum, privilege)
                   ELSE has_table_privilege(role, pg_class.oid, privilege) END
    """)
    roles = [role.value for role in Role if role is not Role.MIGRATOR]
    with database.transaction() as connection:
        found = connection.execute(question, {"roles": roles, "privileges": list(PRIVILEGES)})
        return {tuple(row) for row in found}


def test_the_grants_are_those_of_the_list_and_no_other(granted, database):
    with database.transaction() as connection:
        names = connection.execute(
            text("SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum > 0")
        ).all()
    columns = {table: [column for owner, column in names if owner == table] for table in (*TABLES, *VIEWS)}
    wanted = {
        (role.value, one.privilege, one.table, column)
        for role, grants in GRANTS.items()
        for one in grants
        for column in one.columns or columns[one.table]
    }
    assert grants_there(database) == wanted
    with database.transaction() as connection:
        connection.execute(text("GRANT DELETE ON cell TO leukoflow_reader"))
        connection.execute(text("GRANT SELECT (detail) ON event TO PUBLIC"))
    assert grants_there(database) != wanted
    schema.upgrade(granted)
    assert grants_there(database) == wanted


def test_a_migrator_owns_the_schema_and_changes_it(migrator, database):
    with database.transaction() as connection:
        owners = connection.execute(
            text(
                "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S', 'i')"
            )
        ).scalars()
        assert list(owners) == [Role.MIGRATOR]
    schema.upgrade(migrator)
    with psycopg.connect(plain(migrator)) as connection:
        connection.execute("ALTER TABLE scan ADD COLUMN more int")
        connection.rollback()


def test_what_a_migrator_adds_belongs_to_the_role_and_not_to_the_login(granted, migrator):
    """So that another login of the role can change it later."""
    name = f"older_{uuid.uuid4().hex}"
    with psycopg.connect(plain(granted), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    older = swapped(granted, path=f"/{name}")
    schema.upgrade(older)
    schema.apply_roles(older)
    bring_down_to(older, "0005")
    schema.upgrade(swapped(migrator, path=f"/{name}"))
    with psycopg.connect(plain(older)) as connection:
        owner = connection.execute(
            "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'record_results_read'"
        ).fetchone()
    assert owner == (Role.MIGRATOR,)
    with psycopg.connect(plain(granted), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_who_is_nobody_of_ours_does_not_even_connect(granted):
    name = f"stranger_{uuid.uuid4().hex}"
    with psycopg.connect(plain(granted), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'")
        netloc = f"{name}:p@{urlsplit(granted).netloc.rpartition('@')[2]}"
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(plain(swapped(granted, netloc=netloc)))
        connection.execute(f"DROP ROLE {name}")


def test_a_violated_rule_is_no_refusal(as_):
    """The refusals above are the database's word on rights, and not on anything else that is wrong."""
    with pytest.raises(exc.IntegrityError):
        refused(as_(Principal.WORKER), "INSERT INTO run (scan_id) VALUES (gen_random_uuid())")


def test_rows_of_a_claim_are_the_claimers(as_):
    """What `claimed` of the other tests does in one hand, watcher and worker do in two."""
    (scan_id,) = registered(as_(Principal.WATCHER), arrival())
    with pytest.raises(DeploymentError):
        claimed(as_(Principal.WATCHER), scan_id)
