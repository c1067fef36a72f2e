"""One chaos run: scans are dropped while faults come, one after the other; then the set comes to rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from db.reads import counts_by_state
from pipeline.errors import TransientError
from tests.chaos.faults import FAULTS, FaultKind
from tests.chaos.laboratory import Laboratory
from tests.chaos.oracle import Verdict, completion_times, judged
from tests.chaos.scans import DroppedScan
from tests.house import ENDED
from worker.identity import metadata_for

TICK_S = 0.05
GAP_S = 1.5
"""between the end of a fault and the next: what only works when nothing has just failed is found as well"""
REST_DEADLINE_S = 180.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a run showed."""

    scans: int
    faults: Counter[FaultKind]
    verdict: Verdict
    recoveries_s: tuple[tuple[FaultKind, float], ...]
    """from the death of one process to the next completed scan"""
    took_s: float


@dataclass
class _Run:
    lab: Laboratory
    dropped: list[DroppedScan] = field(default_factory=list)

    def pass_time(self, until_s: float, waiting: list[tuple[float, DroppedScan]]) -> None:
        """Let time pass, dropping scans whose time has come and restarting what died."""
        while True:
            self.lab.staff()
            self._drop(waiting)
            if time.monotonic() >= until_s:
                return
            time.sleep(TICK_S)

    def _drop(self, waiting: list[tuple[float, DroppedScan]]) -> None:
        while waiting and waiting[0][0] <= time.monotonic():
            scan = waiting[0][1]
            try:
                patient, specimen, _ = scan.key.split("/")
                self.lab.scans.put_bytes(
                    scan.key, scan.body, "image/tiff", metadata_for(patient, specimen, scan.priority)
                )
            except TransientError:
                return  # a scanner tries again
            self.dropped.append(scan)
            waiting.pop(0)

    def come_to_rest(self) -> None:
        """Wait until every scan that was dropped has ended; what never ends is the oracle's to find."""
        deadline_s = time.monotonic() + REST_DEADLINE_S
        while time.monotonic() < deadline_s and not self._at_rest():
            self.pass_time(time.monotonic() + 0.5, [])

    def _at_rest(self) -> bool:
        with suppress(TransientError), self.lab.database.transaction() as connection:
            counts = counts_by_state(connection)
            return sum(counts[state] for state in ENDED) == len(self.dropped) == sum(counts.values())
        return False


def run_chaos(
    lab: Laboratory, scans: Sequence[DroppedScan], faults: Sequence[FaultKind], seed: int
) -> Report:
    """Return what came of dropping the scans evenly over the time that the faults take."""
    random, run, start_s = Random(seed), _Run(lab), time.monotonic()
    planned_s = sum(FAULTS[kind].lasts_s + GAP_S for kind in faults)
    waiting = [(start_s + planned_s * number / len(scans), scan) for number, scan in enumerate(scans)]
    deaths: list[tuple[FaultKind, datetime]] = []
    run.pass_time(time.monotonic() + GAP_S, waiting)
    for kind in faults:
        if FAULTS[kind].single_death:
            deaths.append((kind, datetime.now(UTC)))
        with FAULTS[kind].inject(lab, random):
            run.pass_time(time.monotonic() + FAULTS[kind].lasts_s, waiting)
        run.pass_time(time.monotonic() + GAP_S, waiting)
    while waiting:
        run.pass_time(time.monotonic() + GAP_S, waiting)
    run.come_to_rest()
    # What bears a time to come was completed while the database's clock was ahead.
    completed = [time for time in completion_times(lab) if time <= datetime.now(UTC)]
    recoveries = [
        (kind, (after - at).total_seconds())
        for kind, at in deaths
        if (after := next((time for time in completed if time > at), None)) is not None
    ]
    lab.dismiss()
    return Report(
        scans=len(run.dropped),
        faults=Counter(faults),
        verdict=judged(lab, run.dropped),
        recoveries_s=tuple(recoveries),
        took_s=time.monotonic() - start_s,
    )
