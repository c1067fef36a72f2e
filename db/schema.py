"""Upgrades the schema of the database, and applies roles."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from db.granting import create_roles, grant, make_login, missing_roles, switch_to_owner, transfer_ownership
from db.revision import MIGRATIONS, connected, head_revision
from db.roles import Role

_UPGRADE_LOCK = 0x6C65756B6F  # "leuko": one upgrade of a database at a time


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(url: str) -> str:
    """Upgrade the schema to the revision of this release and return it. Safe to run in parallel.

    Raises: TransientError, where the database is unreachable or a table stays locked.
    """
    config = _config()
    with connected(url) as connection:
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
    with connected(url) as connection:
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
    with connected(url) as connection:
        return create_roles(connection)


def add_login(url: str, name: str, role: Role, password: str) -> None:
    """Create or change the login `name` as a member of the role.

    Raises: DeploymentError, where this user may not create logins; TransientError, as `upgrade`.
    """
    with connected(url) as connection:
        make_login(connection, name, role, password)
