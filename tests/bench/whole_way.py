"""Through bucket, queue and database: many uploads of one cell each, and one slide."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import cv2

from db.database import Database
from db.reads import counts_by_state
from db.states import Priority, ScanState
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.smear import Smear, draw_smear
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from tests.bench.measure import ROUNDS, Measure
from tests.bench.networks import cells_per_s, engine_alone_s
from worker.cli.submit import Delivery
from worker.embedded import EmbeddedSet
from worker.embedded.child_process import Child
from worker.embedded.leukoflow_processes import running_leukoflow
from worker.key_pattern import KeyPattern
from worker.storage.object_store import open_object_store

UPLOADS, WARM_UP = 2000, 4
UPLOAD_PX0 = 256
FINE = Mpp(0.1)
"""of single-cell pictures: a camera on oil immersion"""
SMEAR_PX0 = 16_384
SLIDE_PX0 = 8192
LEUKOCYTES_A_SLIDE = 64
"""as in blood: `networks.LEUKOCYTES`"""
_ASK_S = 0.02


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A whole set at work: where scans are dropped, and where they are counted."""

    delivery: Delivery
    database: Database
    children: Sequence[Child]

    def seconds_for(self, scans: Sequence[Path]) -> float:
        """Return how long it takes from the first upload until every scan is completed."""
        expected = self._completed() + len(scans)
        start_s = perf_counter()
        for scan in scans:
            self.delivery.put(scan, Priority.ROUTINE)
        while self._completed() < expected:
            assert all(child.is_running() for child in self.children), "watcher or worker ended by itself"
            time.sleep(_ASK_S)
        return perf_counter() - start_s

    def _completed(self) -> int:
        with self.database.transaction() as connection:
            counts = counts_by_state(connection)
        assert counts[ScanState.QUARANTINED] == 0, "a scan was quarantined"
        return counts[ScanState.COMPLETED]


@contextmanager
def laboratory_of(servers: EmbeddedSet, children: Sequence[Child]) -> Iterator[Laboratory]:
    """Return the laboratory whose watcher and workers are the children."""
    settings = servers.settings()
    store = open_object_store(settings, settings.bucket_scans)
    delivery = Delivery(store, KeyPattern.parse(settings.key_pattern), "BENCH-001", "S-1")
    with Database(settings.database_url.get_secret_value()) as database:
        yield Laboratory(delivery, database, children)


def whole_way(analyser: SlideAnalyser, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield what of the networks' speed is left at the end of the whole way."""
    cells = list(single_cells(folder / "cells"))
    with at_work(folder / "uploads", poll_s="0.5") as laboratory:
        laboratory.seconds_for(cells[:WARM_UP])
        uploads_s = laboratory.seconds_for(cells[WARM_UP:])
    rate = UPLOADS / uploads_s
    yield "single_cell_uploads_per_s", Measure(rate, "images/s")
    yield (
        "single_cell_uploads_share_of_the_raw_classifier_rate",
        Measure(rate / cells_per_s(analyser), "share", 0.6),
    )
    slides = [a_slide(folder / f"slide-{seed}.tif", seed) for seed in range(ROUNDS + 1)]
    with at_work(folder / "slides", poll_s="0.1") as laboratory:
        slide_s = median([laboratory.seconds_for([slide]) for slide in slides][1:])
    engine_s = engine_alone_s(analyser, slides[-1])
    yield "end_to_end_wall_over_pure_engine_time", Measure(slide_s / engine_s, "×", 1.25)
    yield "end_to_end_engine_busy", Measure(engine_s / slide_s, "share")


@contextmanager
def at_work(folder: Path, poll_s: str) -> Iterator[Laboratory]:
    """Return a laboratory whose watcher looks so often, and takes an upload as soon as it sees it: how long
    one lets it settle is no matter of speed."""
    with (
        EmbeddedSet(folder) as servers,
        running_leukoflow(servers, settle_s="0", poll_s=poll_s) as children,
        laboratory_of(servers, children) as laboratory,
    ):
        yield laboratory


def single_cells(folder: Path) -> Iterator[Path]:
    """Yield the files of pictures cut around the leukocytes of a drawn smear, PNG, without a scale."""
    folder.mkdir()
    smear = draw_smear(SmearSpec(Size(SMEAR_PX0, SMEAR_PX0), seed=5, mpp=FINE, leukocytes=UPLOADS + WARM_UP))
    for number, window in enumerate(_windows(smear)):
        path = folder / f"cell-{number:04d}.png"
        cv2.imwrite(str(path), cv2.cvtColor(smear.read(window), cv2.COLOR_RGB2BGR))
        yield path


def _windows(smear: Smear) -> Iterable[Rect]:
    highest = SMEAR_PX0 - UPLOAD_PX0
    for cell in smear.truth:
        x, y = (round(place) - UPLOAD_PX0 // 2 for place in cell.centre_px0)
        yield Rect(min(max(0, x), highest), min(max(0, y), highest), UPLOAD_PX0, UPLOAD_PX0)


def a_slide(path: Path, seed: int) -> Path:
    """Return the file of a drawn slide, at the scale of a 40× scanner."""
    smear = draw_smear(SmearSpec(Size(SLIDE_PX0, SLIDE_PX0), seed=seed, leukocytes=LEUKOCYTES_A_SLIDE))
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    return path
