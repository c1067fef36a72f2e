"""reanalyse, retain, sweep: what is done to many scans at once, long after they came."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Annotated

import typer

from db.database import Database
from db.reanalysis import KnownBundle, ReanalysisFilter, count_reanalysable, database_time, known_bundles
from db.reanalysis import reanalyse as reanalyse_scans
from db.retention import ENDED, ExpiredCounts, RetentionLimit, expired_counts
from db.revision import require_current
from db.states import ScanState
from pipeline.model.errors import UsageError
from pipeline.model.wording import counted
from worker.settings import DatabaseSettings, KeepingSettings, load
from worker.storage.expired_and_orphaned import Retention
from worker.storage.object_store import open_object_store

DAY = "%Y-%m-%d"
SHOWN_DIGITS = 16
"""of a bundle's digest, as `models list` shows it"""

DeleteOption = Annotated[bool, typer.Option("--delete", help="Do it.")]


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
    url = load(DatabaseSettings).database_url.get_secret_value()
    require_current(url)
    with Database(url) as database:
        with database.transaction() as connection:
            if except_bundle is not None:
                _require_known(except_bundle, known_bundles(connection))
            wanted = ReanalysisFilter(since.astimezone(), database_time(connection), except_bundle)
            scans = count_reanalysable(connection, wanted)
        if dry_run:
            typer.echo(f"{counted(scans, 'scan')} would be analysed again")
            return
        asked = 0
        while found := _batch(database, wanted):
            asked += found
    typer.echo(f"{counted(asked, 'scan')} will be analysed again, behind all other work")


def _require_known(digest: str, known: list[KnownBundle]) -> None:
    """Raises: UsageError, where no bundle's digest begins so: a typing error would select every scan."""
    if not any(bundle.digest.startswith(digest) for bundle in known) or not digest:
        named = ", ".join(f"{bundle.digest[:SHOWN_DIGITS]} ({bundle.name})" for bundle in known)
        raise UsageError(
            f"the ledger knows no bundle whose digest begins with {digest!r}; it knows {named or 'none yet'}",
            code="unknown_bundle",
        )


def retain(
    older_than: Annotated[
        int, typer.Option(min=1, help="Days since anything happened to a scan that is deleted.")
    ],
    state: Annotated[
        list[ScanState] | None,
        typer.Option(help="Only those in this state; may be given again. Else all that have ended."),
    ] = None,
    really: DeleteOption = False,
) -> None:
    """Delete old scans: upload, results, cells, pictures. Without --delete it only says what would go."""
    limit = RetentionLimit(timedelta(days=older_than), _ended(state))
    settings = load(KeepingSettings)
    with _opened(settings) as database:
        with database.transaction() as connection:
            old = expired_counts(connection, limit)
        for line in old:
            typer.echo(f"{line.state.value}: {_what_goes(line)}")
        if not old or not really:
            typer.echo("nothing was deleted; --delete does it" if old else "there is nothing so old")
            return
        retained = _keeper(settings, database).delete_expired(limit)
    typer.echo(
        f"deleted {counted(retained.scans, 'scan')} with {counted(retained.objects, 'object')}, and "
        f"{counted(retained.patients, 'patient')} of whom nothing is left"
    )
    if retained.kept:
        typer.echo(f"kept {counted(retained.kept, 'scan')} whose upload the object store refuses to delete")


def _what_goes(old: ExpiredCounts) -> str:
    return (
        f"{counted(old.scans, 'scan')}, {old.upload_bytes / 1e9:.1f} GB of uploads, "
        f"{counted(old.results, 'result')}, {counted(old.cells, 'cell')}"
    )


def sweep(
    older_than: Annotated[
        int, typer.Option(min=1, help="Days since an object was written; longer than any analysis.")
    ] = 7,
    really: DeleteOption = False,
) -> None:
    """Delete objects in the results bucket that belong to no result. Without --delete it only counts them."""
    settings = load(KeepingSettings)
    with _opened(settings) as database:
        keeper = _keeper(settings, database)
        swept, orphans = keeper.find_orphans(settings.bucket_results, timedelta(days=older_than))
        belong = "belongs" if swept.orphans == 1 else "belong"
        listed = counted(swept.listed, "object")
        typer.echo(f"{swept.orphans} of {listed} {belong} to no result; {swept.orphan_bytes / 1e6:.1f} MB")
        if really:
            deleted = keeper.delete_orphans(settings.bucket_results, orphans)
            typer.echo(f"deleted {counted(deleted, 'object')}")
        elif orphans:
            typer.echo("nothing was deleted; --delete does it")


def _ended(states: list[ScanState] | None) -> frozenset[ScanState]:
    """Return the states. Raises: UsageError, where scans in one of them are still on their way."""
    under_way = sorted(frozenset(states or ()) - ENDED)
    if under_way:
        raise UsageError(
            f"scans in the state {under_way[0].value} are not done yet, and are not deleted",
            code="scan_under_way",
        )
    return frozenset(states or ENDED)


def _opened(settings: KeepingSettings) -> Database:
    url = settings.database_url.get_secret_value()
    require_current(url)
    return Database(url)


def _keeper(settings: KeepingSettings, database: Database) -> Retention:
    return Retention(database, cache(lambda bucket: open_object_store(settings, bucket)))


def _batch(database: Database, wanted: ReanalysisFilter) -> int:
    with database.transaction() as connection:
        return len(reanalyse_scans(connection, wanted))
