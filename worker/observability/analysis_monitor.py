"""Observers of an analysis: seconds by stage, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import monotonic, perf_counter

from db.records import Progress
from pipeline.model.ports import Stage

StageSpans = Callable[[Stage], AbstractContextManager[None]]
"""gives the context that a stage runs within"""


class AnalysisMonitor:
    """An `Observer`: measures stages, keeps the progress, and asks `check` whether to go on.

    Each stage runs within what `around` gives for it.
    """

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        around: StageSpans = lambda _stage: nullcontext(),
    ) -> None:
        self._check = check
        self._around = around
        self._seconds: dict[Stage, float] = {}
        self._progress = Progress(0, 0, 0)
        self._moved_s = monotonic()

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Measure the stage; raises what `check` raises before it begins."""
        self._check()
        self._moved_s = monotonic()
        start = perf_counter()
        try:
            with self._around(stage):
                yield
        finally:
            self._moved_s = monotonic()
            self._seconds[stage] = self._seconds.get(stage, 0.0) + perf_counter() - start

    def advanced(self, tiles_done: int, tiles_planned: int, cells_found: int) -> None:
        """Note the progress; raises what `check` raises."""
        self._progress = Progress(tiles_done, tiles_planned, cells_found)
        self._moved_s = monotonic()
        self._check()

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def without_progress_s(self) -> float:
        """Seconds since a stage began or ended, or the progress changed."""
        return monotonic() - self._moved_s

    @property
    def timings_s(self) -> tuple[tuple[str, float], ...]:
        """Seconds by stage, in the order of the stages."""
        return tuple((stage.value, self._seconds[stage]) for stage in Stage if stage in self._seconds)
