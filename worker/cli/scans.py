"""scans, assign, requeue, quarantine: the ledger for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import sleep
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.live import Live

from db.database import Database
from db.reads import find_scan
from db.reads import scans as matching_scans
from db.records import ScanFilter, ScanRow, SpecimenIdentity
from db.registration import assign as assign_scan
from db.registration import requeue as requeue_scan
from db.states import ScanState
from pipeline.model.json_value import Json
from worker.cli.result_tables import SCAN_HEADINGS, scan_fields, scans_table, tab_separated
from worker.ingest.identification import UNSPECIFIED, checked_id
from worker.settings import DatabaseSettings, load

FOLLOW_S = 1.0

quarantine = typer.Typer(help="Scans that were put aside.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def scans(
    scan: Annotated[
        list[str] | None,
        typer.Argument(help="Only these: their ids, or the first or last characters of them."),
    ] = None,
    patient: Annotated[str | None, typer.Option(help="Only this patient's.")] = None,
    state: Annotated[ScanState | None, typer.Option(help="Only those in this state.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Stay, and show what changes.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the ledger: every object that was ever seen in the bucket.

    Into a pipe, each scan is a line with tabs between its fields; with --follow, another when it changes.
    """
    with _database() as database:
        wanted = ScanFilter(
            patient=None if patient is None else checked_id(patient),
            state=state,
            scan_ids=_found(database, scan or ()),
        )
        if follow:
            with suppress(KeyboardInterrupt):
                _keep_printing(database, wanted, as_json=as_json)
        else:
            _print(_rows(database, wanted), as_json=as_json)


def _found(database: Database, prefixes: Iterable[str]) -> tuple[UUID, ...]:
    with database.transaction() as connection:
        return tuple(dict.fromkeys(find_scan(connection, prefix) for prefix in prefixes))


def _keep_printing(database: Database, wanted: ScanFilter, *, as_json: bool) -> None:
    if as_json:
        _follow_lines(database, wanted, _json_line)
    elif Console().is_terminal:
        _follow(database, wanted)
    else:
        typer.echo(tab_separated(SCAN_HEADINGS))
        _follow_lines(database, wanted, _tab_line)


@quarantine.command("list")
def quarantine_list(as_json: AsJson = False) -> None:
    """List the scans that were put aside, with their reasons."""
    with _database() as database:
        _print(_rows(database, ScanFilter(state=ScanState.QUARANTINED)), as_json=as_json)


def assign(
    scan: Annotated[str, typer.Argument(help="Id of the scan, or the first or last characters of it.")],
    patient: Annotated[str, typer.Option(help="The patient's identifier.")],
    specimen: Annotated[str, typer.Option(help="The specimen's identifier.")] = UNSPECIFIED,
) -> None:
    """Say whose scan it is."""
    identity = SpecimenIdentity(checked_id(patient), checked_id(specimen))
    with _database() as database, database.transaction() as connection:
        scan_id = find_scan(connection, scan)
        state = assign_scan(connection, scan_id, identity)
    typer.echo(f"{scan_id} assigned; it is {state.value}")


def requeue(
    scans: Annotated[
        list[str], typer.Argument(help="Ids of scans, or the first or last characters of them.")
    ],
) -> None:
    """Analyse scans again, with all their attempts."""
    with _database() as database, database.transaction() as connection:
        found = list(dict.fromkeys(find_scan(connection, scan) for scan in scans))
        for scan_id in found:
            requeue_scan(connection, scan_id)
    for scan_id in found:
        typer.echo(f"{scan_id} requeued")


def _database() -> Database:
    return Database(load(DatabaseSettings).database_url.get_secret_value())


def _rows(database: Database, wanted: ScanFilter) -> list[ScanRow]:
    with database.transaction() as connection:
        return matching_scans(connection, wanted)


def _print(rows: list[ScanRow], *, as_json: bool) -> None:
    console = Console(markup=False)
    if as_json:
        for row in rows:
            typer.echo(_json_line(row))
    elif console.is_terminal:
        console.print(scans_table(rows, console.width))
    else:
        for line in (tab_separated(SCAN_HEADINGS), *map(_tab_line, rows)):
            typer.echo(line)


def _follow(database: Database, wanted: ScanFilter) -> None:
    """Keep the table on the terminal up to date."""
    console = Console(markup=False)
    with Live(scans_table((), console.width), console=console, auto_refresh=False) as live:
        while True:
            live.update(scans_table(_rows(database, wanted), console.width), refresh=True)
            sleep(FOLLOW_S)


def _follow_lines(database: Database, wanted: ScanFilter, line_of: Callable[[ScanRow], str]) -> None:
    """Print the line of each scan, and again whenever it changes."""
    printed: dict[UUID, str] = {}
    while True:
        for row in _rows(database, wanted):
            line = line_of(row)
            if printed.get(row.scan_id) != line:
                printed[row.scan_id] = line
                typer.echo(line)  # flushes
        sleep(FOLLOW_S)


def _json_line(row: ScanRow) -> str:
    return json.dumps(scan_document(row))


def _tab_line(row: ScanRow) -> str:
    return tab_separated(scan_fields(row))


def scan_document(row: ScanRow) -> dict[str, Json]:
    """Return one line of the ledger as JSON."""
    return {
        "scan": str(row.scan_id),
        "patient": row.patient,
        "specimen": row.specimen,
        "slide": row.slide_name,
        "state": row.state.value,
        "reason": row.reason,
        "error_code": row.error_code,
        "priority": row.priority.value,
        "attempts": row.attempts,
        "max_attempts": row.max_attempts,
        "worker": row.claimed_by,
        "tiles_done": row.progress.tiles_done,
        "tiles_planned": row.progress.tiles_planned,
        "cells": row.progress.cells_found,
        "status": row.status.value if row.status else None,
        "n_leukocytes": row.n_leukocytes,
        "same_content_as": str(row.same_content_as) if row.same_content_as else None,
        "received_at": row.received_at.isoformat(),
        "completed_at": row.completed_at.isoformat() if row.completed_at else None,
    }
