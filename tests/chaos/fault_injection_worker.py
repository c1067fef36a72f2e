"""A worker that dies at a named step when a trap is laid for it; run as a module.

All but its networks is the real worker. A trap is a file; whoever takes it away dies: each kills one worker.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Engine, event

import worker.processing.worker_process
from db.records import Claim
from pipeline.model.domain import Probabilities, Rgb
from pipeline.run import Models
from pipeline.runtime.slide_analyser import SlideAnalyser
from tests.chaos.scans import is_poisoned
from tests.support.drawn import ColourSegmenter, OneClassClassifier
from tests.support.drawn_analyser import drawn_analyser
from worker.observability import logs
from worker.processing.scan_processor import Analysed, ScanProcessor
from worker.settings import Settings, load


class Step(StrEnum):
    """Where a worker can be made to die."""

    BEFORE_CLAIM = "before_claim"
    AFTER_CLAIM = "after_claim"
    MID_TILES = "mid_tiles"
    AFTER_ARTEFACTS = "after_artefacts"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    """and before the message is acknowledged"""


def traps_folder(spool: Path) -> Path:
    """Return the folder of the traps of workers with that spool."""
    return spool / "traps"


class Traps:
    """The traps laid for the workers of one spool."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saving = threading.local()
        event.listen(Engine, "commit", self._committing)

    def spring(self, step: Step) -> None:
        """Die where a trap for this step lies."""
        try:
            (self._folder / step).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Return a context whose next commit is that of a result."""
        self._saving.now = True
        try:
            yield
        finally:
            self._saving.now = False

    def _committing(self, _connection: Connection) -> None:
        if getattr(self._saving, "now", False):
            self.spring(Step.BEFORE_COMMIT)


TRAPS: Traps


class FaultInjectingProcessor(ScanProcessor):
    """The processor, with a trap at each step."""

    @contextmanager
    def claimed(self, scan_id: UUID) -> Iterator[Claim | None]:
        TRAPS.spring(Step.BEFORE_CLAIM)
        with super().claimed(scan_id) as claim:
            TRAPS.spring(Step.AFTER_CLAIM)
            yield claim

    def analyse(self, held: Claim) -> Analysed:
        analysed = super().analyse(held)
        TRAPS.spring(Step.AFTER_ARTEFACTS)
        return analysed

    def save(self, held: Claim, analysed: Analysed) -> None:
        with TRAPS.saving():
            super().save(held, analysed)
        TRAPS.spring(Step.AFTER_COMMIT)


class TrappedSegmenter(ColourSegmenter):
    """Tells drawn colours apart; a poisoned scan kills the process, each time."""

    def segment(self, batch: Rgb) -> Probabilities:
        """Return float32 (N, 3, H, W)."""
        TRAPS.spring(Step.MID_TILES)
        if is_poisoned(batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(super().segment(batch), np.float32)


def fault_injecting_analyser(settings: Settings) -> AbstractContextManager[SlideAnalyser]:
    """Return the analyser of a trapped worker."""
    return drawn_analyser(settings, Models(TrappedSegmenter(), OneClassClassifier()))


if __name__ == "__main__":
    logs.configure("warning")
    asked = load(Settings)
    TRAPS = Traps(traps_folder(asked.spool_dir))
    worker.processing.worker_process.ScanProcessor = FaultInjectingProcessor  # type: ignore[misc]
    sys.exit(worker.processing.worker_process.run_worker(asked, fault_injecting_analyser))
