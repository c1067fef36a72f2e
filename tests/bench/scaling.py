"""How the rate of scans grows with the workers: two on real networks, up to 64 whose networks sleep.

And what the processors do meanwhile: workers, servers and who uploads share this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear
from pipeline.synth.tiff_writer import write_pyramid
from tests.bench.measure import Measure
from tests.bench.sleeping_worker import SLEEP_S
from tests.bench.whole_way import laboratory_of
from tests.support.drawn import drawn_cells
from worker.cli.synth import write_field
from worker.embedded import EmbeddedSet
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import prepare_services, start_process, stopped_at_the_end

REAL = (1, 2)
REAL_FIELDS = 48
SLEEPING = (1, 4, 16, 64)
SCANS_A_SLEEPER = 8
DRAWN_PX0 = 96
WORKER, SLEEPER = "worker", "tests.bench.sleeping_worker"
"""modules"""


def scaling(_analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield scans/s and what each worker is worth, 1 being what the first one is."""
    paces = {count: _pace(folder / f"real-{count}", WORKER, count, _fields(folder, count)) for count in REAL}
    for count, pace in paces.items():
        yield from _told(f"{count}_workers", pace)
    yield "two_workers_over_one", Measure(paces[2].scans_per_s / paces[1].scans_per_s, "×", 1.85)
    for count in SLEEPING:
        scans = list(_drawn(folder / f"drawn-{count}", count * SCANS_A_SLEEPER))
        pace = _pace(folder / f"sleeping-{count}", SLEEPER, count, scans)
        yield from _told(f"{count}_sleeping_workers", pace)
        target = 0.9 if count == SLEEPING[-1] else None
        efficiency = pace.scans_per_s * SLEEP_S / count
        yield f"efficiency_of_{count}_sleeping_workers", Measure(efficiency, "share", target)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast scans went, and the time that all processors together took for one: workers', and others'."""

    scans_per_s: float
    busy: float
    """the part of the processors' time that was taken"""
    worker_ms: float
    other_ms: float


def _told(name: str, pace: _Pace) -> Iterator[tuple[str, Measure]]:
    yield f"scans_per_s_{name}", Measure(pace.scans_per_s, "scans/s")
    yield f"processors_busy_{name}", Measure(pace.busy, "share")
    yield f"processor_time_in_workers_{name}", Measure(pace.worker_ms, "ms/scan")
    yield f"processor_time_elsewhere_{name}", Measure(pace.other_ms, "ms/scan")


def _pace(folder: Path, module: str, count: int, scans: Sequence[Path]) -> _Pace:
    with (
        EmbeddedSet(folder) as servers,
        _working(servers, module, count) as children,
        laboratory_of(servers, children) as laboratory,
    ):
        # every worker has taken a scan before the clock starts
        laboratory.seconds_for(scans[: 2 * count])
        timed = scans[2 * count :]
        before, workers_before_s = psutil.cpu_times(), _seconds_of(children[1:])
        taken_s = laboratory.seconds_for(timed)
        workers_s = _seconds_of(children[1:]) - workers_before_s
        after = psutil.cpu_times()
    all_s = sum(after) - sum(before)
    busy_s = all_s - (after.idle + after.iowait - before.idle - before.iowait)
    return _Pace(
        scans_per_s=len(timed) / taken_s,
        busy=busy_s / all_s,
        worker_ms=1000 * workers_s / len(timed),
        other_ms=1000 * (busy_s - workers_s) / len(timed),
    )


def _seconds_of(children: Sequence[Child]) -> float:
    """Return the processors' time that they have taken so far."""
    return sum(sum(psutil.Process(child.pid).cpu_times()[:2]) for child in children)


@contextmanager
def _working(servers: EmbeddedSet, module: str, count: int) -> Iterator[Sequence[Child]]:
    prepare_services(servers.settings())
    logs = servers.state / "logs"
    environment = servers.environment(
        threads="1", streams="1", worker_slots="1", poll_s="0.5", settle_s="0", log_level="warning"
    )
    with stopped_at_the_end() as children:
        children.append(start_process("watch", environment, servers.state, logs / "watch.log"))
        for number in range(count):
            log_path = logs / f"worker-{number}.log"
            children.append(start_process("worker", environment, Path.cwd(), log_path, module))
        yield children


def _fields(folder: Path, count: int) -> Sequence[Path]:
    place = folder / f"fields-{count}"
    place.mkdir()
    paths = []
    for number, spec in enumerate(field_specs(count, REAL_FIELDS + 2 * count)):
        path = place / f"field-{number:03d}.jpg"
        write_field(path, draw_smear(spec))
        paths.append(path)
    return paths


def _drawn(folder: Path, count: int) -> Iterator[Path]:
    """Yield scans of one drawn cell each, no two alike."""
    folder.mkdir()
    size = Size(DRAWN_PX0, DRAWN_PX0)
    for number in range(count):
        picture = drawn_cells(size, [(DRAWN_PX0 // 2, DRAWN_PX0 // 2)])
        cv2.putText(picture, str(number), (0, 8), cv2.FONT_HERSHEY_PLAIN, 0.6, (220, 220, 230))

        def read(rect: Rect, pixels: np.ndarray = picture) -> np.ndarray:
            return pixels[rect.y : rect.bottom, rect.x : rect.right]

        path = folder / f"drawn-{number:04d}.tif"
        write_pyramid(path, size, read, Mpp(0.25))
        yield path
