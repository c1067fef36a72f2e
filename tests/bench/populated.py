"""The full ledger: what a patient's results and a claim take among 200,000 scans and 10,000,000 cells.

One scan's result is saved as always and then copied inside PostgreSQL. The plans are in
build/explain.txt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
from sqlalchemy import Connection, create_engine, event, text

from db import ledger, results
from db.database import Database
from db.reads import results_of_patient
from db.schema import upgrade
from db.tables import Base
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.bench.measure import Measure
from tests.integration.db.made_results import arrival, cells, claimed, registered, result
from worker.embedded import EmbeddedSet

SCANS, SCANS_A_PATIENT, CELLS_A_SCAN = 200_000, 5, 50
ASKED, CLAIMED = 500, 500
EXPLAINED = Path("build/explain.txt")
TARGET_MS = 20
_VIEW = text("SELECT * FROM patient_differential WHERE patient = :patient")


def populated(_analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the 99th percentiles of a patient's results, by program and by view, and of a claim."""
    with EmbeddedSet(folder / "populated") as servers:
        upgrade(servers.database_url)
        with Database(servers.database_url) as database:
            start_s = perf_counter()
            _fill(database, servers.database_url)
            yield "populated_in", Measure(perf_counter() - start_s, "s")
            numbers = random.Random(1).sample(range(1, SCANS // SCANS_A_PATIENT + 1), ASKED)
            patients = [f"P-{number}" for number in numbers]
            waiting = _waiting(database)
            yield "patient_query_p99", Measure(_p99_ms(database, patients, _results), "ms", TARGET_MS)
            yield "patient_view_p99", Measure(_p99_ms(database, patients, _differential), "ms", TARGET_MS)
            _explain(database, (patients[0], waiting[0]))
            yield "claim_p99", Measure(_p99_ms(database, waiting, _claim), "ms")


def _fill(database: Database, url: str) -> None:
    """Save one result, and copy it until the ledger is full."""
    (scan_id,) = registered(database, arrival("P-0"))
    claim = claimed(database, scan_id)
    with database.transaction() as connection:
        results.save_result(connection, claim, result(cells(lymphocyte=CELLS_A_SCAN)), ())
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in _copies():
            connection.execute(text(statement))
        rows = connection.execute(text("SELECT count(*) FROM cell")).scalar_one()
    engine.dispose()
    assert rows == (SCANS + 1) * CELLS_A_SCAN, f"{rows} cells"


def _copies() -> Iterator[str]:
    """Yield the statements that multiply the one scan there is."""
    numbers = f"generate_series(1, {SCANS}) n"
    numbered = f"SELECT n, 'P-' || (1 + (n - 1) / {SCANS_A_PATIENT}) AS patient FROM {numbers}"
    yield f"INSERT INTO patient (external_id) SELECT DISTINCT patient FROM ({numbered}) numbered"
    others = "SELECT id, 'S' FROM patient WHERE external_id <> 'P-0'"
    yield f"INSERT INTO specimen (patient_id, external_id) {others}"
    yield _copy(
        "scan",
        {
            "object_key": "'copy-' || n",
            "state": "'received'",
            "current_run_id": "NULL",
            "completed_at": "NULL",
            "content_digest": "encode(sha256(n::text::bytea), 'hex')",
            "specimen_id": "specimen.id",
        },
        f"JOIN ({numbered}) numbered ON true JOIN patient ON patient.external_id = numbered.patient"
        " JOIN specimen ON specimen.patient_id = patient.id",
    )
    yield _copy(
        "run",
        {"scan_id": "other.id", "scan_digest": "other.content_digest"},
        "JOIN scan other ON other.state = 'received'",
    )
    yield (
        "UPDATE scan SET state = 'completed', completed_at = now(), current_run_id = run.id FROM run"
        " WHERE run.scan_id = scan.id AND scan.state = 'received'"
    )
    for table in ("cell", "differential"):
        yield _copy(table, {"run_id": "other.id"}, "JOIN run other ON other.id <> original.run_id")
    yield "VACUUM ANALYZE"


def _copy(table: str, changed: dict[str, str], joined: str) -> str:
    """Return the statement that copies the rows there are for each row of what is joined."""
    names = [column.name for column in Base.metadata.tables[table].columns if column.name != "id"]
    values = [changed.get(name, f'original."{name}"') for name in names]
    listed = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({listed}) SELECT {', '.join(values)} FROM {table} original {joined}"


def _waiting(database: Database) -> Sequence[object]:
    scan_ids = registered(database, *(arrival("P-1", "S") for _ in range(CLAIMED)))
    with database.transaction() as connection:
        ledger.mark_queued(connection, scan_ids)
    return scan_ids


def _results(connection: Connection, patient: object) -> None:
    found = results_of_patient(connection, str(patient))
    assert found is not None
    assert len(found.slides) >= SCANS_A_PATIENT


def _differential(connection: Connection, patient: object) -> None:
    assert connection.execute(_VIEW, {"patient": patient}).all()


def _claim(connection: Connection, scan_id: object) -> None:
    assert ledger.claim(connection, scan_id, worker="bench", lease_s=60.0) is not None  # type: ignore[arg-type]


def _p99_ms(database: Database, asked: Sequence[object], ask: Callable[[Connection, object], None]) -> float:
    """Return the 99th percentile of whole transactions, in milliseconds."""
    taken = []
    for one in asked:
        start_s = perf_counter()
        with database.transaction() as connection:
            ask(connection, one)
        taken.append(perf_counter() - start_s)
    return 1000 * float(np.percentile(taken, 99))


class _RollBack(Exception):
    """Nothing of what was explained stays."""


def _explain(database: Database, examples: tuple[object, object]) -> None:
    patient, scan_id = examples
    EXPLAINED.parent.mkdir(exist_ok=True)
    with EXPLAINED.open("w") as out:
        for name, ask, one in (
            ("a patient's results", _results, patient),
            ("the view patient_differential", _differential, patient),
            ("a claim", _claim, scan_id),
        ):
            out.write(f"== {name} ==\n")
            for plan in _plans(database, ask, one):
                out.write(plan + "\n\n")


def _plans(database: Database, ask: Callable[[Connection, object], None], one: object) -> Iterator[str]:
    """Yield the plan of each statement that asking takes; nothing of it stays."""
    said: list[tuple[str, object]] = []

    def listen(connection: Connection) -> None:
        event.listen(
            connection,
            "before_cursor_execute",
            lambda _c, _cursor, statement, parameters, _context, _many: said.append((statement, parameters)),
        )
        ask(connection, one)

    _undone(database, listen)
    plans: list[str] = []

    def explain(connection: Connection) -> None:
        for statement, parameters in said:
            rows = connection.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS) " + statement, parameters)  # type: ignore[arg-type]
            plans.append("\n".join([statement, *(str(row[0]) for row in rows)]))

    _undone(database, explain)
    yield from plans


def _undone(database: Database, work: Callable[[Connection], None]) -> None:
    with suppress(_RollBack), database.transaction() as connection:
        work(connection)
        raise _RollBack
