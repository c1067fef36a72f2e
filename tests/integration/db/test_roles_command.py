"""The commands that make roles and logins, on a cluster that has none yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from db.roles import Role
from pipeline.model.errors import DeploymentError
from tests.support.command_line import app
from worker.embedded import EmbeddedSet, Principal

pytestmark = pytest.mark.services
OWNER = "the-laboratory's"


@pytest.fixture(scope="module")
def own_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSet]:
    servers = EmbeddedSet(tmp_path_factory.mktemp("bare"))
    try:
        servers.start()
        yield servers
    finally:
        servers.delete_outside()


@pytest.fixture
def superuser(own_set: EmbeddedSet) -> Iterator[psycopg.Connection]:
    """Return an administrator's connection to a cluster without our roles, with a plain user's database."""
    url = urlunsplit(urlsplit(own_set.database_url)._replace(scheme="postgresql"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS laboratory WITH (FORCE)")
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for name in known & {*Principal, *Role, "ward-7", OWNER}:
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
        connection.execute(f"""CREATE ROLE "{OWNER}" LOGIN PASSWORD 'o'""")
        connection.execute(f"""CREATE DATABASE laboratory OWNER "{OWNER}" """)
        yield connection


def url_of(own_set: EmbeddedSet, login: str, password: str) -> str:
    parts = urlsplit(own_set.database_url)
    netloc = f"{login.replace(chr(39), '%27')}:{password}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc, path="/laboratory"))


def run(url: str, *arguments: str) -> str:
    called = CliRunner().invoke(
        app, ["db", *arguments], env={"LEUKOFLOW_DATABASE_URL": url}, catch_exceptions=False
    )
    assert called.exit_code == 0, called.output
    return called.stdout


def test_roles_are_made_by_an_administrator_where_the_owner_of_the_database_may_not(
    own_set: EmbeddedSet, superuser: psycopg.Connection, tmp_path: Path
) -> None:
    owner = url_of(own_set, OWNER, "o")
    run(owner, "upgrade")
    with pytest.raises(DeploymentError, match="leukoflow db roles --print") as refused:
        run(owner, "roles")
    assert refused.value.code == "roles_missing"

    superuser.execute(run(owner, "roles", "--print"))
    assert "every role was there" in run(owner, "roles")
    assert "every role was there" in run(owner, "roles")

    (tmp_path / "password").write_text("a password's\n")
    with pytest.raises(DeploymentError) as refused:
        run(owner, "login", "ward-7", "leukoflow_reader", "--password-file", str(tmp_path / "password"))
    assert refused.value.code == "database_refused"
    administrator = urlunsplit(urlsplit(own_set.database_url)._replace(path="/laboratory"))
    for _ in range(2):
        run(
            administrator,
            "login",
            "ward-7",
            "leukoflow_reader",
            "--password-file",
            str(tmp_path / "password"),
        )
    reader = urlunsplit(urlsplit(url_of(own_set, "ward-7", "a%20password%27s"))._replace(scheme="postgresql"))
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT count(*) FROM patient").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM patient")
    hashed = superuser.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'ward-7'").fetchone()
    assert hashed[0].startswith("SCRAM-SHA-256$")
    # The owner of the database upgrades as before, though the tables are the migrator's by now.
    run(owner, "upgrade")


def test_an_owner_who_may_make_roles_without_being_a_superuser_does_it_alone(
    own_set: EmbeddedSet, superuser: psycopg.Connection, tmp_path: Path
) -> None:
    """As on managed servers."""
    superuser.execute(f'ALTER ROLE "{OWNER}" CREATEROLE')
    owner = url_of(own_set, OWNER, "o")
    (tmp_path / "password").write_text("p")
    run(owner, "upgrade")
    assert "made leukoflow_migrator" in run(owner, "roles")
    run(owner, "login", "ward-7", "leukoflow_worker", "--password-file", str(tmp_path / "password"))
    run(owner, "upgrade")
    worker = urlunsplit(urlsplit(url_of(own_set, "ward-7", "p"))._replace(scheme="postgresql"))
    with psycopg.connect(worker) as connection:
        assert connection.execute("SELECT count(*) FROM scan").fetchone() == (0,)


@pytest.mark.usefixtures("superuser")
def test_an_administrator_who_owns_the_database_needs_no_more_than_the_command(own_set: EmbeddedSet) -> None:
    run(own_set.database_url, "upgrade")
    run(own_set.database_url, "roles")
    with psycopg.connect(own_set.database_url.replace("+psycopg", "")) as connection:
        owner = connection.execute("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'scan'")
        assert owner.fetchone() == (Role.MIGRATOR,)
