"""The ledger's rates, on a PostgreSQL of the embedded set: whole results saved, each in its transaction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from db import results
from db.database import Database
from db.schema import upgrade
from pipeline.model.domain import Cell
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.bench.measure import Measure, seconds
from tests.integration.db.made_results import arrival, cells, claimed, registered, result
from worker.embedded import EmbeddedSet

CELLS = 50_000
"""of one slide: an hour's worth of a busy analyser"""


def ledger(_analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield how fast a slide's cells reach PostgreSQL, from records to committed rows."""
    found = cells(lymphocyte=CELLS)
    with EmbeddedSet(folder / "ledger") as servers:
        upgrade(servers.database_url)
        with Database(servers.database_url) as database:
            numbers = count()
            saving_s = seconds(lambda: _save(database, found, f"slide-{next(numbers)}"))
    yield "cells_into_postgresql_rows_per_s", Measure(CELLS / saving_s, "rows/s", 100_000)


def _save(database: Database, found: tuple[Cell, ...], content: str) -> None:
    (scan_id,) = registered(database, arrival())
    claim = claimed(database, scan_id)
    with database.transaction() as connection:
        results.save_result(connection, claim, result(found, content), ())
