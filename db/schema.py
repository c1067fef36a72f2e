"""Reads and upgrades the schema of the database, and applies roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from db.errors import translated
from db.granting import create_roles, grant, make_login, missing_roles, switch_to_owner, transfer_ownership
from db.roles import Role
from pipeline.model.errors import DeploymentError

_UPGRADE_LOCK = 0x6C65756B6F  # "leuko": one upgrade of a database at a time
_CONNECT_TIMEOUT_S = 5


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S}, hide_parameters=True
    )
    with translated(), engine.begin() as connection:
        yield connection


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def head_revision() -> str:
    """Return the revision that this release needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise DeploymentError("this installation has no migrations", code="schema_missing")
    return head


def current_revision(url: str) -> str | None:
    """Return the revision of the database; None if it has no schema.

    Raises: TransientError, where the database is unreachable.
    """
    with _connected(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str) -> str:
    """Upgrade the schema to the revision of this release and return it. Safe to run in parallel.

    Raises: TransientError, where the database is unreachable or a table stays locked.
    """
    config = _config()
    with _connected(url) as connection:
        # Waits for a parallel upgrade; the version is read afterwards, and then nothing is left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        switch_to_owner(connection)
        command.upgrade(config, "head")
        if not missing_roles(connection):
            grant(connection)
    return head_revision()


def apply_roles(url: str) -> list[Role]:
    """Create missing roles, grant the privileges of all roles, and return the new roles.

    Afterwards the migrator owns the schema.
    Raises: DeploymentError, where this user lacks the privileges; TransientError, as `upgrade`.
    """
    with _connected(url) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        made = create_roles(connection)
        transfer_ownership(connection)
        switch_to_owner(connection)
        grant(connection)
    return made


def prepare_cluster(url: str) -> list[Role]:
    """Create the roles that the cluster lacks, and return them.

    Raises: as `apply_roles`.
    """
    with _connected(url) as connection:
        return create_roles(connection)


def add_login(url: str, name: str, role: Role, password: str) -> None:
    """Create or change the login `name` as a member of the role.

    Raises: DeploymentError, where this user may not create logins; TransientError, as `upgrade`.
    """
    with _connected(url) as connection:
        make_login(connection, name, role, password)


def require_current(url: str) -> None:
    """Raises: DeploymentError, where the schema is older than this release needs."""
    if current_revision(url) is None:
        raise DeploymentError("the database has no schema; run: leukoflow db upgrade", code="schema_missing")
    with _connected(url) as connection:
        known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
        revision = MigrationContext.configure(connection).get_current_revision()
    # An unknown revision is newer. Migrations only expand the schema, so this release works with it.
    if revision in known and revision != head_revision():
        raise DeploymentError(
            "the database schema is older than this release; run: leukoflow db upgrade", code="schema_old"
        )
