"""status: how things stand, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from db.database import Database
from db.queue_statistics import (
    FailureCount,
    QueueStatistics,
    WorkerActivity,
    failures,
    queue_statistics,
    worker_activity,
)
from db.reads import counts_by_state
from db.states import ScanState
from pipeline.model.json_value import Json
from worker.cli.result_tables import tab_separated
from worker.settings import DatabaseSettings, load

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Status:
    """What the ledger says at one moment."""

    scans: Mapping[ScanState, int]
    queue_statistics: QueueStatistics
    workers: list[WorkerActivity]
    failures: list[FailureCount]


def status(
    hours: Annotated[float, typer.Option(min=0.01, max=8760, help="How far back `lately` goes.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show how things stand: scans by state, what waits, who works, what failed lately; no patient."""
    with Database(load(DatabaseSettings).database_url.get_secret_value()) as database:
        found = _read(database, hours * HOUR_S)
    if as_json:
        typer.echo(json.dumps(status_document(found)))
    else:
        for table in _tables(found, hours):
            _print(table)


def _read(database: Database, within_s: float) -> Status:
    with database.transaction() as connection:
        return Status(
            scans=counts_by_state(connection),
            queue_statistics=queue_statistics(connection),
            workers=worker_activity(connection, within_s=within_s),
            failures=failures(connection, within_s=within_s),
        )


def status_document(found: Status) -> dict[str, Json]:
    """Return the status as JSON; times are in seconds."""
    return {
        "scans": {state.value: count for state, count in found.scans.items()},
        "waiting": {priority.value: asdict(one) for priority, one in found.queue_statistics.waiting.items()},
        "workers": [asdict(worker) for worker in found.workers],
        "failures": [asdict(failure) for failure in found.failures],
    }


@dataclass(frozen=True, slots=True)
class _Listing:
    """A table's words, before it is known where they go."""

    title: str
    headings: tuple[str, ...]
    rows: Iterable[tuple[str, ...]]


def _tables(found: Status, hours: float) -> Iterable[_Listing]:
    lately = f"in the last {hours:g} h"
    yield _Listing(
        "scans", ("state", "scans"), ((state.value, str(count)) for state, count in found.scans.items())
    )
    yield _Listing(
        "waiting for a worker",
        ("priority", "scans", "oldest"),
        (
            (priority.value, str(one.scans), duration(one.oldest_s) if one.scans else "")
            for priority, one in found.queue_statistics.waiting.items()
        ),
    )
    yield _Listing(
        f"workers seen {lately}; who had nothing to do is not seen",
        ("worker", "running", "completed", "failed", "seen"),
        (
            (one.worker, str(one.running), str(one.completed), str(one.failed), _ago(one.seen_s))
            for one in found.workers
        ),
    )
    yield _Listing(
        f"attempts without a result {lately}",
        ("code", "outcome", "attempts", "last"),
        ((one.code, one.outcome.value, str(one.attempts), _ago(one.last_s)) for one in found.failures),
    )


def _print(listing: _Listing) -> None:
    """Print a table on a terminal; into a pipe whole lines, with tabs between their fields."""
    console = Console(markup=False)
    if not console.is_terminal:
        for line in (listing.title, *map(tab_separated, (listing.headings, *listing.rows)), ""):
            typer.echo(line)
        return
    table = Table()
    for number, heading in enumerate(listing.headings):
        table.add_column(heading, justify="left" if number == 0 else "right", overflow="fold")
    for row in listing.rows:
        table.add_row(*row)
    console.print(Text(listing.title, style="italic"), table, sep="\n")


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """Return a time as people say it, in its two largest units: `4 min 10 s`, `2 d 3 h`."""
    whole = max(0, round(seconds))
    parts = (
        (whole // 86_400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    )
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"
