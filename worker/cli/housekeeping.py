"""reanalyse, retain, sweep: what is done to many scans at once, long after they came."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from db.database import Database
from db.reanalysis import Wanted, moment_of, reanalysable
from db.reanalysis import reanalyse as reanalyse_scans
from db.schema import require_current
from worker.settings import load_database_settings

DAY = "%Y-%m-%d"


def reanalyse(
    since: Annotated[
        datetime,
        typer.Option(formats=[DAY, "%Y-%m-%dT%H:%M:%S"], help="Those that arrived since then, local time."),
    ],
    except_bundle: Annotated[
        str | None,
        typer.Option(help="Leave out those whose result is by the bundle whose digest begins so."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> None:
    """Analyse completed scans again, behind all other work. Former results stay on record."""
    url = load_database_settings().database_url.get_secret_value()
    require_current(url)
    with Database(url) as database:
        with database.transaction() as connection:
            wanted = Wanted(since.astimezone(), moment_of(connection), except_bundle)
            counted = reanalysable(connection, wanted)
        if dry_run:
            typer.echo(f"{counted} scans would be analysed again")
            return
        asked = 0
        while found := _batch(database, wanted):
            asked += found
    typer.echo(f"{asked} scans will be analysed again, behind all other work")


def _batch(database: Database, wanted: Wanted) -> int:
    with database.transaction() as connection:
        return len(reanalyse_scans(connection, wanted))
