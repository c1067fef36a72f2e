"""How long a STAT scan takes from upload to result, with nobody else there and while hundreds wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import copy
from statistics import median

import numpy as np
from sqlalchemy import func, select

from db.reads import counts_by_state
from db.states import Priority, ScanState
from db.tables import Scan
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear
from tests.bench.measure import Measure
from tests.bench.whole_way import Laboratory, at_work
from worker.cli.synth import write_field

ROUTINE, STATS, DRAWN = 500, 20, 24
STILL_WAITING = 50
"""routine scans at the least while the last STAT scan is asked for: else nothing was overtaken"""
_ASK_S = 0.02


def stat(_analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield the STAT scan's time alone, its 95th percentile while routine scans wait, and their ratio."""
    files = list(_fields(folder, ROUTINE + 2 * STATS + 1))
    with at_work(folder / "stat", poll_s="0.2") as laboratory:
        laboratory.seconds_for(files[:1])
        idle_s = median(_seconds(laboratory, file) for file in files[1 : 1 + STATS])
        for file in files[1 + 2 * STATS :]:
            laboratory.delivery.put(file, Priority.ROUTINE)
        busy_s = [_seconds(laboratory, file) for file in files[1 + STATS : 1 + 2 * STATS]]
        with laboratory.database.transaction() as connection:
            waiting = counts_by_state(connection)[ScanState.QUEUED]
    assert waiting >= STILL_WAITING, f"only {waiting} scans still waited"
    p95_s = float(np.percentile(busy_s, 95))
    yield "stat_alone", Measure(idle_s, "s")
    yield "stat_p95_while_500_wait", Measure(p95_s, "s")
    yield "stat_p95_over_alone", Measure(p95_s / idle_s, "×", 3.0)


def _seconds(laboratory: Laboratory, scan: Path) -> float:
    """Return how long one STAT scan takes from its upload to its result."""
    start_s = time.perf_counter()
    before = _completed(laboratory)
    laboratory.delivery.put(scan, Priority.STAT)
    while _completed(laboratory) == before:
        time.sleep(_ASK_S)
    return time.perf_counter() - start_s


def _completed(laboratory: Laboratory) -> int:
    """Return how many STAT scans are completed."""
    done = select(func.count()).where(Scan.priority == Priority.STAT, Scan.state == ScanState.COMPLETED)
    with laboratory.database.transaction() as connection:
        return connection.execute(done).scalar_one()


def _fields(folder: Path, count: int) -> Sequence[Path]:
    """Return files of a few drawn fields, again and again."""
    drawn = [folder / f"drawn-{number}.jpg" for number in range(DRAWN)]
    for path, spec in zip(drawn, field_specs(seed=DRAWN, count=DRAWN), strict=True):
        write_field(path, draw_smear(spec))
    return [Path(copy(drawn[number % DRAWN], folder / f"field-{number:03d}.jpg")) for number in range(count)]
