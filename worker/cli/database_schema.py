"""The database schema: upgrade, roles, logins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from db.granting import roles_sql
from db.revision import require_current
from db.roles import Role
from db.schema import add_login, apply_roles, upgrade
from pipeline.model.errors import UsageError
from worker.settings import DatabaseSettings, load

db = typer.Typer(help="The database schema.", no_args_is_help=True)


@db.command("upgrade")
def upgrade_schema() -> None:
    """Bring the schema to this release's revision."""
    typer.echo(f"schema at revision {upgrade(_database_url())}")


@db.command("roles")
def roles(
    only_print: Annotated[
        bool, typer.Option("--print", help="Print what makes the roles, for an administrator; do nothing.")
    ] = False,
) -> None:
    """Make the roles that processes and people log in as members of, and give each what it needs.

    As the owner of the database, after `leukoflow db upgrade`. A second time changes nothing.
    """
    if only_print:
        typer.echo(roles_sql(make_url(_database_url()).username or "owner"), nl=False)
        return
    url = _database_url()
    require_current(url)
    made = apply_roles(url)
    typer.echo(f"made {', '.join(made)}" if made else "every role was there")
    typer.echo("each has what it needs; the tables belong to leukoflow_migrator")


@db.command("login")
def login(
    name: Annotated[str, typer.Argument(help="The login.")],
    role: Annotated[Role, typer.Argument(help="What it may do.")],
    password_file: Annotated[Path, typer.Option(help="File with its password.", dir_okay=False)],
) -> None:
    """Let a process or a person log in to the database as a member of a role."""
    try:
        password = password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{password_file} cannot be read", code="file_unreadable") from error
    add_login(_database_url(), name, role, password)
    typer.echo(f"{name} may log in as a member of {role}")


def _database_url() -> str:
    return load(DatabaseSettings).database_url.get_secret_value()
