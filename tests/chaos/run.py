"""One chaos run: scans are dropped while faults come, one after the other; then the set comes to rest.

First deaths of one process alone, each in a whole set that then recovers; then all kinds, close together.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from db.reads import counts_by_state
from pipeline.model.errors import TransientError
from tests.chaos.faults import FAULTS, FaultKind
from tests.chaos.laboratory import Laboratory
from tests.chaos.oracle import Verdict, completion_times, judged
from tests.chaos.plan import Plan
from tests.chaos.scans import DroppedScan
from tests.support.deployment import ENDED
from worker.ingest.identification import metadata_for

TICK_S = 0.05
GAP_S = 1.5
"""between the end of a fault and the next: what only works when nothing has just failed is found as well"""
REST_DEADLINE_S = 180.0
RECOVERY_DEADLINE_S = 120.0
ALONE_EVERY_S = 1.0
"""between two scans while deaths come alone"""
AFTERWARDS_S = 10.0
"""for which scans still come after the last fault: without one there is nothing to recover"""

Waiting = list[tuple[float, DroppedScan]]
"""Scans and when they are dropped, by `time.monotonic`, the next one first."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took from the death of one process to the next completed scan."""

    kind: FaultKind
    took_s: float
    number: int | None
    """which of the faults that came close together it was; None: it came alone"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run showed."""

    scans: int
    faults: Counter[FaultKind]
    verdict: Verdict
    recoveries: tuple[Recovery, ...]
    took_s: float


@dataclass
class _Run:
    lab: Laboratory
    random: Random
    dropped: list[DroppedScan] = field(default_factory=list)

    def suffer(self, kind: FaultKind, waiting: Waiting) -> datetime:
        """Let a fault come and go. Return when it came."""
        at = datetime.now(UTC)
        with FAULTS[kind].inject(self.lab, self.random):
            self.pass_time(time.monotonic() + FAULTS[kind].lasts_s, waiting)
        return at

    def recover(self, since: datetime, waiting: Waiting) -> float:
        """Wait until a scan was completed after that; return by how many seconds, or how long was waited."""
        deadline_s = time.monotonic() + RECOVERY_DEADLINE_S
        while time.monotonic() < deadline_s:
            self.pass_time(time.monotonic() + TICK_S, waiting)
            with suppress(TransientError):
                if (took_s := _seconds_to_next(since, completion_times(self.lab))) is not None:
                    return took_s
        return RECOVERY_DEADLINE_S

    def pass_time(self, until_s: float, waiting: Waiting) -> None:
        """Let time pass, dropping scans whose time has come and restarting what died."""
        while True:
            self.lab.staff()
            self._drop(waiting)
            if time.monotonic() >= until_s:
                return
            time.sleep(TICK_S)

    def _drop(self, waiting: Waiting) -> None:
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


def run_chaos(lab: Laboratory, scans: Sequence[DroppedScan], plan: Plan, seed: int) -> Report:
    """Return what came of the plan's faults while the scans were dropped."""
    run, start_s = _Run(lab, Random(seed)), time.monotonic()
    alone = list(_alone(run, plan.alone, scans))
    deaths = _close_together(run, plan.close, scans[len(run.dropped) :])
    run.come_to_rest()
    amid = _recoveries(lab, deaths)
    lab.dismiss()
    return Report(
        scans=len(run.dropped),
        faults=Counter((*plan.alone, *plan.close)),
        verdict=judged(lab, run.dropped),
        recoveries=(*alone, *amid),
        took_s=time.monotonic() - start_s,
    )


def _alone(run: _Run, kinds: Sequence[FaultKind], scans: Sequence[DroppedScan]) -> Iterator[Recovery]:
    """Yield what each fault took that came to a whole set, and that no other followed before it was over."""
    waiting = _spread(scans, ALONE_EVERY_S)
    for kind in kinds:
        run.recover(datetime.now(UTC), waiting)
        at = run.suffer(kind, waiting)
        yield Recovery(kind, run.recover(at, waiting), None)


def _close_together(
    run: _Run, kinds: Sequence[FaultKind], scans: Sequence[DroppedScan]
) -> list[tuple[int, FaultKind, datetime]]:
    """Let one fault follow the other, recovered or not; the scans come evenly. Return which were deaths, and
    when they came."""
    lasts_s = sum(FAULTS[kind].lasts_s + GAP_S for kind in kinds) + AFTERWARDS_S
    waiting = _spread(scans, lasts_s / max(1, len(scans)))
    run.pass_time(time.monotonic() + GAP_S, waiting)
    deaths: list[tuple[int, FaultKind, datetime]] = []
    for number, kind in enumerate(kinds):
        at = run.suffer(kind, waiting)
        if FAULTS[kind].single_death:
            deaths.append((number, kind, at))
        run.pass_time(time.monotonic() + GAP_S, waiting)
    while waiting:
        run.pass_time(time.monotonic() + GAP_S, waiting)
    return deaths


def _recoveries(lab: Laboratory, deaths: Sequence[tuple[int, FaultKind, datetime]]) -> list[Recovery]:
    # What bears a time to come was completed while the database's clock was ahead.
    completed = [time for time in completion_times(lab) if time <= datetime.now(UTC)]
    return [
        Recovery(kind, took_s, number)
        for number, kind, at in deaths
        if (took_s := _seconds_to_next(at, completed)) is not None
    ]


def _seconds_to_next(since: datetime, times: Iterable[datetime]) -> float | None:
    following = [at for at in times if at > since]
    return (min(following) - since).total_seconds() if following else None


def _spread(scans: Sequence[DroppedScan], every_s: float) -> Waiting:
    now_s = time.monotonic()
    return [(now_s + every_s * number, scan) for number, scan in enumerate(scans)]
